"""Polls what services need from outside the operator, in the background: a reconcile never waits for an answer."""

import asyncio
import math
import operator
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from conch.api.kinds import ServiceKey
from conch.signals.limiter import FairLimiter

_log = structlog.get_logger("conch")
Name = TypeVar("Name")
Target = TypeVar("Target")
Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Target, Value]):
    """One target of a service. Times are seconds of the event loop's clock."""

    target: Target
    requested: float = 0.0  # time of the last request
    ended: float = -math.inf  # time of the end of the last poll
    value: Value | None = None
    task: asyncio.Task[None] | None = None  # the poll in flight
    timer: asyncio.TimerHandle | None = None  # of the next poll

    def cancel(self) -> None:
        """End the poll in flight, and let no other one begin."""
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            self.task.cancel()


@dataclass
class Poller(Generic[Name, Target, Value]):
    """Keeps the last value of each target that a service requests. One event loop; nothing is persisted.

    A target is what one poll reads: the agent of a pod, a PromQL query, the events of an object. Each reconcile calls
    `request` with the targets that its service needs at that moment. The call returns the values known so far, and
    starts polls in the background. A new value enqueues the service, and its next reconcile reads the value.

    - A target has at most one poll in flight, and rests for its period after each poll.
    - Namespaces take turns: slow targets of one namespace do not delay those of another.
    - A target that its service no longer requests is forgotten: its poll is cancelled and its value dropped.
    """

    enqueue: Callable[[ServiceKey], None]  # called with a service that has a new value
    poll: Callable[[ServiceKey, Target, Value | None], Awaitable[Value | None]]
    """Target, its last value -> its value; None: there is no answer, and the last value stays."""
    limiter: FairLimiter  # of polls
    period: Callable[[Target], float]  # seconds between the end of a poll and the next poll of the same target
    lease: float = 0.0
    """Seconds for which a request keeps a target polled. 0: a request brings one poll, and none while the target rests.
    Infinite: polls go on until the service no longer requests the target. In the second half of a lease each poll
    enqueues the service, whose reconcile then renews the lease by a request, or lets it expire."""
    is_news: Callable[[Value | None, Value], bool] = operator.ne  # last and new value -> whether to enqueue the service
    _entries: dict[ServiceKey, dict[Name, _Entry[Target, Value]]] = field(default_factory=dict)

    def close(self) -> None:
        """Cancel all polls and forget all services."""
        for key in list(self._entries):
            self.request(key, {})

    def request(self, key: ServiceKey, targets: Mapping[Name, Target]) -> Mapping[Name, Value]:
        """Set the targets of a service, poll those that are due, and return the known values.

        Args:
            key: the service.
            targets: by a name under which the value is kept while the target changes, such as the uid of a pod; an
                empty mapping forgets the service.
        """
        now = asyncio.get_running_loop().time()
        known = self._entries.pop(key, {})
        entries = {name: known.pop(name, _Entry(target)) for name, target in targets.items()}
        for entry in known.values():
            entry.cancel()
        if entries:
            self._entries[key] = entries
        for name, entry in entries.items():
            entry.target, entry.requested = targets[name], now
            if entry.task is None:
                self._plan(key, name, entry)
        return {name: entry.value for name, entry in entries.items() if entry.value is not None}

    def _plan(self, key: ServiceKey, name: Name, entry: _Entry[Target, Value]) -> None:
        """Poll a target when it has rested. Without a lease, one that rests is polled after a later request only."""
        if entry.timer is not None:
            entry.timer.cancel()
        loop = asyncio.get_running_loop()
        due = entry.ended + self.period(entry.target)
        if due <= loop.time():
            self._start(key, name, entry)
        elif self.lease:
            entry.timer = loop.call_at(due, self._start, key, name, entry)

    def _start(self, key: ServiceKey, name: Name, entry: _Entry[Target, Value]) -> None:
        entry.timer, entry.task = None, asyncio.create_task(self._run(key, name, entry))

    async def _run(self, key: ServiceKey, name: Name, entry: _Entry[Target, Value]) -> None:
        """Poll a target once, and plan the next poll while its lease lasts; forget it when the lease has expired."""
        is_news = await self._update(key, entry)
        if _is_cancelled():  # the poll has ended in spite of it, and the target is forgotten
            return
        entry.task = None
        idle = entry.ended - entry.requested
        if idle < self.lease:
            self._plan(key, name, entry)
        elif self.lease:
            entries = self._entries[key]
            del entries[name]
            if not entries:
                del self._entries[key]
        if is_news or (self.lease and idle > self.lease / 2):
            self.enqueue(key)

    async def _update(self, key: ServiceKey, entry: _Entry[Target, Value]) -> bool:
        """Poll a target once; return whether its value is news."""
        try:
            async with self.limiter.turn(key.namespace):
                value = await self.poll(key, entry.target, entry.value)
            is_news = value is not None and self.is_news(entry.value, value)
        except (Exception, asyncio.CancelledError):  # an error of one poll ends no other, and not the next one
            if _is_cancelled():
                raise
            _log.exception("poll failed", service=str(key))
            return False
        finally:
            entry.ended = asyncio.get_running_loop().time()
        entry.value = entry.value if value is None else value
        return is_news


def _is_cancelled() -> bool:
    """Whether this task is cancelled. A poll also raises CancelledError where it awaits a future that is."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
