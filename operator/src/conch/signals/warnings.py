"""Lists the latest Warning event of stuck objects, whose status does not contain the reason.

Only an event reports a volume that cannot be mounted (kubelet), or a pod of a Job that is refused (Job controller).
Events are too many to watch: one list call an object, while it is stuck, in the background.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from conch.api.kinds import ServiceKey
from conch.observe import Finding
from conch.signals.limiter import FairLimiter
from conch.signals.poller import Poller

_LISTS: Final = 8  # list calls at a time
_MAX_OBJECTS: Final = 4  # of a service: pods of one revision are stuck for one reason

ReadWarning = Callable[[str, str], Awaitable[Finding | None]]
"""Namespace, uid -> the latest warning of that object; None: there is none, or the call failed."""


class _Stuck(NamedTuple):
    uid: str
    period: float


class Warnings:
    """Lists events while objects are stuck; calls `enqueue` with a service that has a new warning."""

    def __init__(self, enqueue: Callable[[ServiceKey], None], read: ReadWarning) -> None:
        async def poll(key: ServiceKey, stuck: _Stuck, _: Finding | None) -> Finding | None:
            return await read(key.namespace, stuck.uid)

        self._poller = Poller[str, _Stuck, Finding](
            enqueue, poll, FairLimiter(_LISTS), period=lambda stuck: stuck.period, lease=math.inf
        )

    async def close(self) -> None:
        """Cancel the list calls."""
        self._poller.close()

    def request(self, key: ServiceKey, periods: Mapping[str, float]) -> Mapping[str, Finding]:
        """Return the known warnings of stuck objects by uid.

        Their events are listed again and again until the service requests those of other objects, or none.

        Args:
            key: the service.
            periods: of each object, by uid: seconds from a list of its events to the next one.
        """
        return self._poller.request(key, {uid: _Stuck(uid, periods[uid]) for uid in sorted(periods)[:_MAX_OBJECTS]})
