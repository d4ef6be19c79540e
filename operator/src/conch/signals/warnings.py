"""Lists the latest Warning event of stuck objects, whose status does not contain the reason.

Only an event reports a volume that cannot be mounted (kubelet), or a pod of a Job that is refused (Job controller).
Events are too many to watch: one list call an object, while it is stuck, in the background.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from conch.api.kinds import ServiceKey
from conch.observe import Trouble
from conch.signals.limiter import FairLimiter

PERIOD: Final = 10.0  # seconds between two questions about an object
_AT_ONCE: Final = 8  # questions under way
_MOST: Final = 4  # objects of a service that are asked about: pods of one revision are stuck for one reason

Look = Callable[[str, str], Awaitable[Trouble | None]]
"""Namespace, uid -> the latest warning of that object; None: there is none, or the call failed."""


class Warnings:
    """Lists events while objects are stuck; calls `changed` with a service that has a new warning."""

    def __init__(self, changed: Callable[[ServiceKey], None], look: Look, period: float = PERIOD) -> None:
        self._changed = changed
        self._look = look
        self._period = period
        self._known: dict[ServiceKey, dict[str, Trouble]] = {}
        self._next: dict[str, float] = {}  # by uid, when it may be asked about again, of the loop's clock
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._limiter = FairLimiter(_AT_ONCE)

    async def close(self) -> None:
        """Drop the questions."""
        for task in self._asking.values():
            task.cancel()

    def ask(self, key: ServiceKey, uids: Iterable[str]) -> Mapping[str, Trouble]:
        """Return the known warnings of these objects, by uid, and list their events anew in the background.

        Warnings of other objects of the service are dropped.
        """
        stuck = list(uids)[:_MOST]
        known = {uid: trouble for uid, trouble in self._known.pop(key, {}).items() if uid in stuck}
        if known:
            self._known[key] = known
        now = asyncio.get_running_loop().time()
        self._next = {uid: moment for uid, moment in self._next.items() if moment > now}
        for uid in stuck:
            if uid not in self._next and uid not in self._asking:
                self._next[uid] = now + self._period
                self._asking[uid] = asyncio.create_task(self._ask_one(key, uid))
        return known

    async def _ask_one(self, key: ServiceKey, uid: str) -> None:
        try:
            async with self._limiter.turn(key.namespace):
                found = await self._look(key.namespace, uid)
        finally:
            del self._asking[uid]
        if found is not None and found != self._known.get(key, {}).get(uid):
            self._known.setdefault(key, {})[uid] = found
            self._changed(key)
