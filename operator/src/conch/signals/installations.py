"""Whether another installation of Conch acts, while services name it in their status.

Its Lease is read again and again, and only while a service waits to know. A Lease that is renewed has another content
each time: no clock of another node is compared with ours.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import structlog

from conch.api.kinds import ServiceKey
from conch.observe.installation import LeaseRecord

PERIOD: Final = 5.0  # seconds between two looks at a Lease; its holder renews it every 2
# Seconds without a renewal after which an installation is gone. Long enough for a leader that crashed without another
# replica to be started again: its services should not change hands and back.
PATIENCE: Final = 30.0

_log = structlog.get_logger("conch")
Read = Callable[[str], Awaitable[LeaseRecord | None]]
"""Installation -> its Lease; None: the API server failed."""


class Activity(StrEnum):
    """Whether an installation acts."""

    PENDING = "Pending"  # not known yet
    ACTIVE = "Active"
    UNREADABLE = "Unreadable"  # the operator may not read its Lease
    GONE = "Gone"


class Installations:
    """Watches the Leases of other installations; calls `changed` with the services of one whose activity changed."""

    def __init__(
        self,
        changed: Callable[[ServiceKey], None],
        read: Read,
        period: float = PERIOD,
        patience: float = PATIENCE,
    ) -> None:
        self._changed = changed
        self._read = read
        self._period = period
        self._patience = patience
        self._services: dict[str, set[ServiceKey]] = {}  # by installation
        self._owners: dict[ServiceKey, str] = {}
        self._activities: dict[str, Activity] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Stop looking."""
        for task in self._tasks.values():
            task.cancel()

    def ask(self, key: ServiceKey, installation: str) -> Activity:
        """Return whether the installation acts that a service is marked with, and go on looking."""
        if self._owners.get(key) != installation:
            self.forget(key)
        self._owners[key] = installation
        self._services.setdefault(installation, set()).add(key)
        if installation not in self._tasks:
            self._tasks[installation] = asyncio.create_task(self._look_on(installation))
        return self._activities.get(installation, Activity.PENDING)

    def forget(self, key: ServiceKey) -> None:
        """Stop looking on behalf of a service: it is ours, or gone."""
        self._services.get(self._owners.pop(key, ""), set()).discard(key)

    async def _look_on(self, installation: str) -> None:
        """Look until no service has the mark any more."""
        first: LeaseRecord | None = None
        last, unchanged = first, 0.0  # seconds
        try:
            while self._services.get(installation):
                record = await self._read(installation)
                if record is None:
                    unchanged = 0.0  # the other installation may not have reached the API server either
                else:
                    first = first or record
                    unchanged = unchanged + self._period if record == last else 0.0
                    last = record
                    self._set(installation, _judge(first, record, unchanged >= self._patience))
                await asyncio.sleep(self._period)
        finally:
            self._tasks.pop(installation, None)
            self._activities.pop(installation, None)
            self._services.pop(installation, None)

    def _set(self, installation: str, activity: Activity) -> None:
        before = self._activities.get(installation, Activity.PENDING)
        if activity in {before, Activity.PENDING}:
            return  # one that has been seen at work stays so until its Lease has not been renewed for a while
        self._activities[installation] = activity
        services = sorted(self._services[installation])
        _log.warning("services of another installation", installation=installation, activity=activity.value)
        for key in services:
            self._changed(key)


def _judge(first: LeaseRecord, record: LeaseRecord, is_overdue: bool) -> Activity:
    """Return the activity of an installation by two records of its Lease."""
    if record.exists and not record.content:
        return Activity.UNREADABLE
    if not record.exists or is_overdue:
        return Activity.GONE
    return Activity.PENDING if record == first else Activity.ACTIVE
