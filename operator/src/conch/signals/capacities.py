"""Asks what GPUs the cluster has, while a rollout waits to know: no reconcile ever waits for the API server.

Why asked and not watched: it takes all pods of the cluster to know who holds what, and nobody needs to know it but a
rollout of a GPU service at its beginning. One look serves all that wait, at most every few seconds. An answer is never
older than its question: what had been seen before may count pods that are gone.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from conch.api.kinds import ServiceKey
from conch.observe.capacity import Capacity

PERIOD: Final = 10.0  # seconds between two looks
_SHARE: Final = 0.1  # of the time, at most, that looking may take: that of a large cluster takes a while
_LEASE: Final = 60.0  # seconds that one question keeps a service asked for

Look = Callable[[Iterable[str]], Awaitable[Mapping[str, Capacity]]]
"""Namespaces -> what there is for each; one that is absent from the answer could not be told this time."""


class Capacities:
    """Looks while anybody waits; calls `changed` with the service that has news."""

    def __init__(self, changed: Callable[[ServiceKey], None], look: Look, period: float = PERIOD) -> None:
        self._changed = changed
        self._look = look
        self._period = period
        self._asked: dict[ServiceKey, float] = {}  # when it last was, of the loop's clock
        self._told: dict[ServiceKey, Capacity] = {}
        self._first = asyncio.Event()  # somebody asks who has no answer yet
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()

    def ask(self, key: ServiceKey, *, waits: bool) -> Capacity | None:
        """Return what is known for a service that waits; None: nothing yet. For one that does not, nothing is kept."""
        if not waits:
            self._forget(key)
            return None
        if key not in self._asked:
            self._first.set()
        self._asked[key] = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_on())
        return self._told.get(key)

    def _forget(self, key: ServiceKey) -> None:
        self._asked.pop(key, None)
        self._told.pop(key, None)

    async def _look_on(self) -> None:
        """Look until nobody asks any more."""
        loop = asyncio.get_running_loop()
        while self._asked:
            self._first.clear()
            began, asked = loop.time(), frozenset(self._asked)
            found = await self._look({key.namespace for key in asked})
            for key in asked & self._asked.keys():
                self._tell(key, found.get(key.namespace))
            for key in [key for key, last in self._asked.items() if loop.time() - last > _LEASE]:
                self._forget(key)
            took = loop.time() - began
            await asyncio.sleep(took)  # many that begin one after the other shall not have it look all the time
            rest = max(self._period, took / _SHARE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), rest)

    def _tell(self, key: ServiceKey, capacity: Capacity | None) -> None:
        if capacity is not None and capacity != self._told.get(key):
            self._told[key] = capacity
            self._changed(key)
