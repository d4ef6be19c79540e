"""Activity and scope of other installations of Conch that services name in their status.

Its Lease is read periodically, and only while a service names the installation. A Lease that is renewed has another
content each time: clocks of different nodes are not compared.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import structlog

from conch.api.kinds import ServiceKey
from conch.observe.installation import LeaseRecord, Scope

PERIOD: Final = 5.0  # seconds between two reads of a Lease; its holder renews it every 2
# Seconds without a renewal after which an installation is gone. Long enough for a leader that crashed without another
# replica to be started again: its services should not change their installation twice.
PATIENCE: Final = 30.0

_log = structlog.get_logger("conch")
ReadLease = Callable[[str], Awaitable[LeaseRecord | None]]
"""Installation -> its Lease; None: the API server failed."""


class Activity(StrEnum):
    """Activity of an installation."""

    PENDING = "Pending"  # not known yet
    ACTIVE = "Active"
    UNREADABLE = "Unreadable"  # the operator may not read its Lease
    GONE = "Gone"


class Installations:
    """Reads the Leases of other installations; calls `enqueue` with the services of one whose activity changed.

    It is no `Poller`: one read of a Lease serves all services that name its installation, and the activity follows from
    a series of reads.
    """

    def __init__(
        self,
        enqueue: Callable[[ServiceKey], None],
        read: ReadLease,
        period: float = PERIOD,
        patience: float = PATIENCE,
    ) -> None:
        self._enqueue = enqueue
        self._read = read
        self._period = period
        self._patience = patience
        self._services: dict[str, set[ServiceKey]] = {}  # by installation
        self._owners: dict[ServiceKey, str] = {}
        self._activities: dict[str, Activity] = {}
        self._scopes: dict[str, Scope] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Cancel the reads."""
        for task in self._tasks.values():
            task.cancel()

    def request(self, key: ServiceKey, installation: str) -> Activity:
        """Return whether the installation acts that a service names, and keep reading its Lease."""
        if self._owners.get(key) != installation:
            self.forget(key)
        self._owners[key] = installation
        self._services.setdefault(installation, set()).add(key)
        if installation not in self._tasks:
            self._tasks[installation] = asyncio.create_task(self._run(installation))
        return self._activities.get(installation, Activity.PENDING)

    def get_scope(self, installation: str) -> Scope:
        """Return the services that an installation serves, by its Lease; all, as long as that has not been read."""
        return self._scopes.get(installation, Scope())

    def forget(self, key: ServiceKey) -> None:
        """Read no Lease for a service: this installation serves it, or it is gone."""
        self._services.get(self._owners.pop(key, ""), set()).discard(key)

    async def _run(self, installation: str) -> None:
        """Read the Lease of an installation while a service names it."""
        first: LeaseRecord | None = None
        last, unchanged = first, 0.0  # seconds
        try:
            while self._services.get(installation):
                record = await self._read(installation)
                if record is None:
                    unchanged = 0.0  # the other installation may not have reached the API server either
                else:
                    first = first or record
                    unchanged = unchanged + self._period if last is not None and not record.is_renewed(last) else 0.0
                    last = record
                    self._set(installation, _evaluate(first, record, unchanged >= self._patience), record.scope)
                await asyncio.sleep(self._period)
        finally:
            self._tasks.pop(installation, None)
            self._activities.pop(installation, None)
            self._scopes.pop(installation, None)
            self._services.pop(installation, None)

    def _set(self, installation: str, activity: Activity, scope: Scope) -> None:
        before, known = self._activities.get(installation, Activity.PENDING), self.get_scope(installation)
        self._scopes[installation] = scope
        if activity not in {before, Activity.PENDING}:
            # One that has been active stays so until its Lease has not been renewed for a while.
            self._activities[installation] = activity
            _log.warning("services of another installation", installation=installation, activity=activity.value)
        elif scope == known:
            return
        for key in sorted(self._services[installation]):
            self._enqueue(key)


def _evaluate(first: LeaseRecord, record: LeaseRecord, is_overdue: bool) -> Activity:
    """Return the activity of an installation by two records of its Lease."""
    if record.exists and not record.content:
        return Activity.UNREADABLE
    if not record.exists or is_overdue:
        return Activity.GONE
    return Activity.ACTIVE if record.is_renewed(first) else Activity.PENDING
