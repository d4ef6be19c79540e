"""Lists the GPUs that the cluster has, while a rollout needs to know: no reconcile ever waits for the API server.

Lists and no watch: the owners of GPUs are known from all pods of the cluster, and only a rollout of a GPU service needs
them, at its beginning. One list serves all services that wait, at most every few seconds. A capacity is never older
than its request: an earlier list may count pods that are gone.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from conch.api.kinds import ServiceKey
from conch.observe.capacity import Capacity

PERIOD: Final = 10.0  # seconds between two lists
_SHARE: Final = 0.1  # of the time, at most, that lists may take: those of a large cluster take long
_LEASE: Final = 60.0  # seconds for which a request keeps a service waiting

ReadCapacities = Callable[[Iterable[str]], Awaitable[Mapping[str, Capacity]]]
"""Namespaces -> the capacity for each; absent where it could not be read this time."""


class Capacities:
    """Lists while a service waits; calls `enqueue` with a service that has a new capacity.

    It is no `Poller`: one list is the poll of all services, its pace depends on how long it takes, and a service that
    joins while it runs is not served by it.
    """

    def __init__(self, enqueue: Callable[[ServiceKey], None], read: ReadCapacities, period: float = PERIOD) -> None:
        self._enqueue = enqueue
        self._read = read
        self._period = period
        self._requested: dict[ServiceKey, float] = {}  # time of the last request, of the event loop's clock
        self._known: dict[ServiceKey, Capacity] = {}
        self._joined = asyncio.Event()  # a service waits that has no capacity yet
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Cancel the list."""
        if self._task is not None:
            self._task.cancel()

    def request(self, key: ServiceKey, *, waits: bool) -> Capacity | None:
        """Return the known capacity for a service that waits; None: not known yet. Other services are forgotten."""
        if not waits:
            self._forget(key)
            return None
        if key not in self._requested:
            self._joined.set()
        self._requested[key] = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return self._known.get(key)

    def _forget(self, key: ServiceKey) -> None:
        self._requested.pop(key, None)
        self._known.pop(key, None)

    async def _run(self) -> None:
        """List until no service waits."""
        loop = asyncio.get_running_loop()
        while self._requested:
            self._joined.clear()
            began, keys = loop.time(), frozenset(self._requested)
            found = await self._read({key.namespace for key in keys})
            for key in keys & self._requested.keys():
                self._update(key, found.get(key.namespace))
            for key in [key for key, last in self._requested.items() if loop.time() - last > _LEASE]:
                self._forget(key)
            took = loop.time() - began
            await asyncio.sleep(took)  # services that join one after the other do not cause lists without a pause
            rest = max(self._period, took / _SHARE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._joined.wait(), rest)

    def _update(self, key: ServiceKey, capacity: Capacity | None) -> None:
        if capacity is not None and capacity != self._known.get(key):
            self._known[key] = capacity
            self._enqueue(key)
