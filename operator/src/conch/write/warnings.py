"""The latest Warning event about an object, as the API server lists it."""

from typing import Any

import structlog

from conch.api.kinds import EVENT
from conch.observe import Trouble
from conch.write.errors import CallError
from conch.write.server import Server

_log = structlog.get_logger("conch")


async def latest_warning(server: Server, namespace: str, uid: str) -> Trouble | None:
    """Return the latest Warning event of an object; None: there is none, or the call failed."""
    try:
        found = [event async for event in server.each(EVENT, namespace, f"regarding.uid={uid},type=Warning")]
    except CallError as error:
        _log.warning("events are not read", namespace=namespace, error=error.message)
        return None
    latest = max(found, key=_time, default=None)
    return Trouble(str(latest.get("reason") or ""), str(latest.get("note") or "")) if latest else None


def _time(event: dict[str, Any]) -> str:
    """When an event was last seen; components of before events.k8s.io/v1 write the deprecated field."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")
