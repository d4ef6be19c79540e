"""Resolves host names that users write, with a maximum of threads for each namespace, and checks what they stand for.

A lookup cannot be cancelled: with name servers that do not answer it takes half a minute, awaited or not.
aiohttp's ThreadedResolver shares a handful of threads among all lookups: one namespace's would delay the others'.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from conch.signals.limiter import FairLimiter
from conch_contract.addresses import check_address

Infos = list[tuple[Any, ...]]


class Resolver(AbstractResolver):
    """Resolves names, except to forbidden addresses. A lookup holds its turn until its thread ends."""

    def __init__(self, limit: int, look_up: Callable[..., Infos] = socket.getaddrinfo) -> None:
        """Prepare it; `limit` is of threads, `look_up` has the arguments of socket.getaddrinfo."""
        self.namespace: ContextVar[str] = ContextVar("namespace", default="")  # for which names are resolved
        self._look_up = look_up
        self._limiter = FairLimiter(limit)
        self._ending: set[asyncio.Task[None]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: there are none.
            ValueError: one of them is a forbidden address.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._limiter.turn(self.namespace.get()))
            lookup = _in_thread(lambda: self._look_up(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG))
            lookup.add_done_callback(partial(self._end, stack.pop_all()))
        infos = await asyncio.shield(lookup)
        found = [
            ResolveResult(hostname=host, host=address[0], port=address[1], family=kind, proto=protocol, flags=_NUMERIC)
            for kind, _, protocol, _, address in infos
        ]
        for one in found:
            check_address(one["host"])
        return found

    def _end(self, turn: AsyncExitStack, _: object) -> None:
        task = asyncio.get_running_loop().create_task(turn.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Close nothing: a lookup under way ends by itself, and the process does not wait for it."""


_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def _in_thread(call: Callable[[], Infos]) -> "asyncio.Future[Infos]":
    """Return the future of a call in its own daemon thread, which does not delay the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Infos] = loop.create_future()
    future.add_done_callback(
        lambda done: done.cancelled() or done.exception()
    )  # otherwise asyncio logs an error that is not awaited any more

    def settle(found: Infos, error: Exception | None) -> None:
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error if isinstance(error, OSError) else OSError(f"no host name ({error})"))

    def run() -> None:
        found, problem = [], None
        try:
            found = call()
        except Exception as error:  # noqa: BLE001  it is raised where the answer is awaited
            problem = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, problem)

    try:
        threading.Thread(target=run, name="resolver", daemon=True).start()
    except RuntimeError as error:  # no more threads
        settle([], error)
    return future
