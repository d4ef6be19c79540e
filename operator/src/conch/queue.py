"""A work queue of keys: coalescing, fair, delayed, with backoff.

Why our own: client-go's workqueue is what every controller stands on, and Python has no counterpart. The rules are
client-go's (`util/workqueue`): a key is worked on by one worker at a time; a key added while it is worked on is worked
on once more afterwards; a key added twice before that is worked on once. Fairness is ours: namespaces take turns, so
that one tenant's two thousand services do not stand before another's edit.

Nothing here knows Kubernetes, and time comes from the event loop alone.
"""

import asyncio
import random
from collections import OrderedDict, deque
from typing import Final

from conch.api.kinds import ServiceKey

BACKOFF_FIRST: Final = 0.2  # seconds
BACKOFF_LIMIT: Final = 60.0  # seconds
BACKOFF_JITTER: Final = 0.25  # of the delay, either way


class WorkQueue:
    """Keys to work on. One event loop, many workers: `get`, work, then `done`."""

    def __init__(self, seed: int | None = None) -> None:
        self._lanes: OrderedDict[str, deque[ServiceKey]] = OrderedDict()
        self._queued: set[ServiceKey] = set()
        self._active: set[ServiceKey] = set()
        self._again: set[ServiceKey] = set()
        self._timers: dict[ServiceKey, asyncio.TimerHandle] = {}
        self._failures: dict[ServiceKey, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._random = random.Random(seed)  # noqa: S311  jitter is no secret

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def active(self) -> int:
        """How many keys are being worked on."""
        return len(self._active)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or being worked on; delayed keys do not count."""
        return not self._queued and not self._active

    def add(self, key: ServiceKey) -> None:
        """Ask that a key be worked on, soon. What was planned for later is brought forward."""
        self._cancel_timer(key)
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._lanes.setdefault(key.namespace, deque()).append(key)
            self._wake_one()

    def add_after(self, key: ServiceKey, seconds: float) -> None:
        """Ask that a key be worked on after some seconds, if not sooner for another reason."""
        if key in self._queued or key in self._again:
            return
        loop = asyncio.get_running_loop()
        planned = self._timers.get(key)
        if planned is not None and planned.when() <= loop.time() + seconds:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self._timer_due, key)

    def retry(self, key: ServiceKey, at_least: float = 0.0) -> float:
        """Plan a key again after a failure: exponential, jittered, bounded. Return the delay in seconds.

        Call it before `done`: a key that was added meanwhile is worked on at once all the same.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BACKOFF_FIRST * 2.0 ** min(failures, 16), BACKOFF_LIMIT)
        delay *= 1 + self._random.uniform(-BACKOFF_JITTER, BACKOFF_JITTER)
        delay = max(delay, at_least)
        self.add_after(key, delay)
        return delay

    def forget(self, key: ServiceKey) -> None:
        """A key went well: its next failure starts from the first backoff again."""
        self._failures.pop(key, None)

    async def get(self) -> ServiceKey:
        """Wait for the next key. The caller must call `done` with it, whatever comes."""
        while not self._lanes:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # it was woken and goes away: pass the turn on
                raise
        namespace, lane = next(iter(self._lanes.items()))
        key = lane.popleft()
        if lane:
            self._lanes.move_to_end(namespace)
        else:
            del self._lanes[namespace]
        self._queued.discard(key)
        self._active.add(key)
        return key

    def done(self, key: ServiceKey) -> None:
        """A worker is through with a key; if it was added meanwhile, it is queued again."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Drop all plans for later."""
        for key in list(self._timers):
            self._cancel_timer(key)

    def _timer_due(self, key: ServiceKey) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: ServiceKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
