"""Lists the latest Warning event of stuck objects, whose status does not contain the reason.

Only an event reports a volume that cannot be mounted (kubelet), or a pod of a Job that is refused (Job controller).
Events are too many to watch: one list call an object, while it is stuck, in the background.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from conch.api.kinds import ServiceKey
from conch.observe import Finding
from conch.signals.limiter import FairLimiter
from conch.signals.poller import Poller

PERIOD: Final = 9.0  # seconds between two lists of an object's events
_LISTS: Final = 8  # list calls at a time
_MAX_OBJECTS: Final = 4  # of a service: pods of one revision are stuck for one reason

ReadWarning = Callable[[str, str], Awaitable[Finding | None]]
"""Namespace, uid -> the latest warning of that object; None: there is none, or the call failed."""


class Warnings:
    """Lists events while objects are stuck; calls `enqueue` with a service that has a new warning."""

    def __init__(self, enqueue: Callable[[ServiceKey], None], read: ReadWarning, period: float = PERIOD) -> None:
        async def poll(key: ServiceKey, uid: str, _: Finding | None) -> Finding | None:
            return await read(key.namespace, uid)

        self._poller = Poller[str, str, Finding](
            enqueue, poll, FairLimiter(_LISTS), period=lambda _: period, lease=math.inf
        )

    async def close(self) -> None:
        """Cancel the list calls."""
        self._poller.close()

    def request(self, key: ServiceKey, uids: Iterable[str]) -> Mapping[str, Finding]:
        """Return the known warnings of these objects by uid.

        Their events are listed again and again until the service requests those of other objects, or none.
        """
        return self._poller.request(key, {uid: uid for uid in sorted(uids)[:_MAX_OBJECTS]})
