"""Resolves host names that users write, with a maximum of threads for each namespace, and checks what they stand for.

A lookup cannot be cancelled: with name servers that do not answer it takes half a minute, whoever still waits for it.
aiohttp's ThreadedResolver shares a handful of threads among all lookups: one namespace's would delay the others'.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from conch.signals.limiter import FairLimiter

# Metadata servers of clouds with an address that is not link-local: AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052

Infos = list[tuple[Any, ...]]


class Resolver(AbstractResolver):
    """Resolves names, but not to addresses that no user's server has. A lookup holds its turn until its thread ends."""

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
            ValueError: one of them is never asked.
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
    """Return what becomes of a call in a thread of its own, which does not keep the process from its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Infos] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is read, whoever waits or not

    def settle(found: Infos | None, error: OSError | UnicodeError | None) -> None:
        if error is not None:
            future.set_exception(error if isinstance(error, OSError) else OSError(f"no host name ({error})"))
        else:
            future.set_result(found or [])

    def run() -> None:
        found, problem = None, None
        try:
            found = call()
        except (OSError, UnicodeError) as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, problem)

    threading.Thread(target=run, name="resolver", daemon=True).start()
    return future


def check_address(host: str) -> None:
    """Refuse a link-local address, or one of a cloud's metadata server, in whatever way it is embedded.

    Raises:
        ValueError: it is one.

    >>> check_address("10.0.0.1")
    >>> check_address("64:ff9b::a9fe:a9fe")
    Traceback (most recent call last):
    ValueError: 64:ff9b::a9fe:a9fe is a link-local address or a cloud's metadata server, which is never asked
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return  # a name; the resolver checks what it stands for
    if any(each.is_link_local or each in _METADATA for each in _meant(address)):
        raise ValueError(f"{host} is a link-local address or a cloud's metadata server, which is never asked")


def _meant(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return an address, and those that it embeds: IPv4-mapped, 6to4, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in embedded if each is not None)]
