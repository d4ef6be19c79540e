"""Limits concurrent requests, with a maximum for each namespace: slow pods of one do not delay those of another.

It is our own because an asyncio.Semaphore serves in order of arrival only.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_SHARES: Final = 4  # a namespace has at most one of so many


class FairLimiter:
    """Admits a number at a time. Namespaces take turns, and none has more than a quarter. One event loop."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._share = max(1, limit // _SHARES)
        self._active: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a turn of a namespace, and hold it."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.cancelled():
                self._forget(namespace, turn)
            else:
                self._free += 1
                self._active -= Counter([namespace])
                if namespace in self._waiting:
                    self._waiting.move_to_end(namespace)
            self._admit()

    def _admit(self) -> None:
        """Give what is free to the namespaces in turn."""
        while self._free:
            name = next((name for name in self._waiting if self._active[name] < self._share), None)
            if name is None:
                return
            turn = self._waiting[name][0]
            self._forget(name, turn)
            if turn.cancelled():  # its task has not run since
                continue
            self._free -= 1
            self._active[name] += 1
            turn.set_result(None)

    def _forget(self, namespace: str, turn: asyncio.Future[None]) -> None:
        """Take a turn from those that wait."""
        lane = self._waiting.get(namespace, deque())
        if turn in lane:
            lane.remove(turn)
        if not lane:
            self._waiting.pop(namespace, None)
