"""A work queue of keys: coalescing, fair, delayed, with backoff and a rest between two rounds of work on a key.

It is our own because Python has no counterpart of client-go's workqueue. The rules are client-go's (`util/workqueue`):
a key is worked on by one worker at a time; a key added while it is worked on is worked on once more afterwards; a key
added twice before that is worked on once. In addition:

- Namespaces take turns, so that an edit of one tenant does not wait for two thousand services of another. Within a
  namespace the causes take turns: edits, creations, and all else, most of which new pods bring.
- A key rests after it was worked on: events come in groups, such as those of a new pod, and each group is worked on
  once. The first one does not wait. After an answer with Retry-After it rests as long as the API server requires.

It knows nothing of Kubernetes, and its clock is the event loop's.
"""

import asyncio
import random
from collections import OrderedDict, deque
from enum import IntEnum
from typing import Final

from conch.api.kinds import ServiceKey

BACKOFF_FIRST: Final = 0.2  # seconds
BACKOFF_LIMIT: Final = 60.0  # seconds
BACKOFF_JITTER: Final = 0.25  # of the delay, either way
REST_SECONDS: Final = 0.1  # between two rounds of work on a key


class Cause(IntEnum):
    """Why a key is queued. Of two causes the lower one counts."""

    EDIT = 0  # a user has changed the service
    CREATION = 1  # a user has created it
    OTHER = 2  # its objects have changed, or it is due


# A cause without keys passes its turn on to the next one: in a burst of new services, creations have four of five
# turns. With every other one, all children of 200 new services were there a fifth later than in order of arrival.
_TURNS: Final = (Cause.EDIT, Cause.CREATION, Cause.EDIT, Cause.CREATION, Cause.OTHER)


class _Lines:
    """The keys of one namespace: a line for each cause. The lines take turns, so that none waits for all of another."""

    def __init__(self) -> None:
        # Ordered sets: a key in the middle is removed as fast as the first one.
        self._lines: tuple[OrderedDict[ServiceKey, None], ...] = tuple(OrderedDict() for _ in Cause)
        self._turn = 0

    def __bool__(self) -> bool:
        return any(self._lines)

    def add(self, key: ServiceKey, cause: Cause) -> None:
        """Add a key at the end of a line, unless it is there or in the line of a lower cause."""
        if any(key in line for line in self._lines[:cause]):
            return
        for line in self._lines[cause + 1 :]:
            line.pop(key, None)
        self._lines[cause].setdefault(key)

    def pop(self) -> ServiceKey:
        """Remove the next key, and return it."""
        turns = _TURNS[self._turn :] + _TURNS[: self._turn]
        self._turn = (self._turn + 1) % len(_TURNS)
        cause: Cause = next(each for each in turns if self._lines[each])
        return self._lines[cause].popitem(last=False)[0]


class WorkQueue:
    """Keys to reconcile. One event loop, many workers: `get`, reconcile, then `done`."""

    def __init__(self, seed: int | None = None) -> None:
        self._namespaces: OrderedDict[str, _Lines] = OrderedDict()
        self._queued: set[ServiceKey] = set()
        self._active: set[ServiceKey] = set()
        self._resting: dict[ServiceKey, asyncio.TimerHandle] = {}
        self._dirty: dict[ServiceKey, Cause] = {}  # added while active or resting
        self._rests_until: dict[ServiceKey, float] = {}  # active keys whose rest is longer, by the event loop's clock
        self._timers: dict[ServiceKey, asyncio.TimerHandle] = {}
        self._failures: dict[ServiceKey, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._random = random.Random(seed)  # noqa: S311  jitter is no secret
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def active(self) -> int:
        """Number of keys that are being worked on."""
        return len(self._active)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or being worked on; delayed keys do not count."""
        return not self._queued and not self._active and not self._dirty

    def add(self, key: ServiceKey, cause: Cause = Cause.OTHER) -> None:
        """Queue a key now, or when it has rested. A delayed addition of the key is dropped."""
        self._cancel_timer(key)
        if key in self._active or key in self._resting:
            self._dirty[key] = min(cause, self._dirty.get(key, cause))
            return
        self._namespaces.setdefault(key.namespace, _Lines()).add(key, cause)
        if key not in self._queued:
            self._queued.add(key)
            self._wake_one()

    def add_after(self, key: ServiceKey, seconds: float) -> None:
        """Queue a key after some seconds, if nothing queues it before."""
        if self._is_closed or key in self._queued or key in self._dirty:
            return
        loop = asyncio.get_running_loop()
        planned = self._timers.get(key)
        if planned is not None and planned.when() <= loop.time() + seconds:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self._timer_due, key)

    def retry(self, key: ServiceKey, at_least: float = 0.0) -> float:
        """Queue a key again after a failure; return the delay in seconds: exponential, with jitter and a maximum.

        Call it before `done`: a key that was added meanwhile is worked on after its rest all the same.

        Args:
            key: the key.
            at_least: seconds for which it rests, whatever adds it: those of Retry-After.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BACKOFF_FIRST * 2.0 ** min(failures, 16), BACKOFF_LIMIT)
        delay *= 1 + self._random.uniform(-BACKOFF_JITTER, BACKOFF_JITTER)
        delay = max(delay, at_least)
        self._rests_until[key] = asyncio.get_running_loop().time() + at_least
        self.add_after(key, delay)
        return delay

    def forget(self, key: ServiceKey) -> None:
        """Reset the backoff of a key after a success."""
        self._failures.pop(key, None)

    async def get(self) -> ServiceKey:
        """Return the next key when there is one. The caller must call `done` with it, also after an error."""
        while not self._namespaces:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # cancelled after it was woken: wake the next one
                raise
        namespace, lines = next(iter(self._namespaces.items()))
        key = lines.pop()
        if lines:
            self._namespaces.move_to_end(namespace)
        else:
            del self._namespaces[namespace]
        self._queued.discard(key)
        self._active.add(key)
        return key

    def done(self, key: ServiceKey) -> None:
        """Mark a key as processed; queue it again after its rest, if it is added until then."""
        self._active.discard(key)
        loop = asyncio.get_running_loop()
        until = max(loop.time() + REST_SECONDS, self._rests_until.pop(key, 0.0))
        if not self._is_closed:
            self._resting[key] = loop.call_at(until, self._end_rest, key)

    def close(self) -> None:
        """Cancel all delayed additions, and those of keys that rest; later ones have no effect."""
        self._is_closed = True
        for key in list(self._timers):
            self._cancel_timer(key)
        for rest in self._resting.values():
            rest.cancel()
        self._resting.clear()

    def _end_rest(self, key: ServiceKey) -> None:
        del self._resting[key]
        if (cause := self._dirty.pop(key, None)) is not None:
            self.add(key, cause)

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
