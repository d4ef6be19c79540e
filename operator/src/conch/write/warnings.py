"""The latest Warning event about an object, as the API server lists it."""

import re
from contextlib import aclosing
from typing import Any, Final

import structlog

from conch.api.kinds import EVENT
from conch.observe import Finding
from conch.write.errors import CallError
from conch.write.lists import Listing, list_objects
from conch.write.server import Server

_MOST: Final = 1000  # events of an object that are read; a user may create any number
_POD: Final = re.compile(r'pods "([^"]*)-[a-z0-9]{5}"')
_ID: Final = re.compile(r"[0-9a-f]{32,}")
_log = structlog.get_logger("conch")


async def latest_warning(server: Server, namespace: str, uid: str) -> Finding | None:
    """Return the latest event of an object, if it is a warning; None also where the call failed."""
    latest: dict[str, Any] = {}
    try:
        async with aclosing(list_objects(server, Listing(EVENT, namespace, fields=f"regarding.uid={uid}"))) as events:
            left = _MOST
            async for event in events:
                latest, left = max(latest, event, key=_get_time), left - 1
                if not left:
                    break
    except CallError as error:
        _log.warning("events are not read", namespace=namespace, error=error.message)
        return None
    if latest.get("type") != "Warning":
        return None
    return Finding(str(latest.get("reason") or ""), remove_random_names(str(latest.get("note") or "")))


def remove_random_names(note: str) -> str:
    """Return the text of an event without names of pods and ids of sandboxes, which change at each attempt.

    >>> remove_random_names('Error creating: pods "m-warmup-x7k2p" is forbidden: exceeded quota')
    'Error creating: pods "m-warmup-…" is forbidden: exceeded quota'
    """
    return _ID.sub("…", _POD.sub(r'pods "\1-…"', note))


def _get_time(event: dict[str, Any]) -> str:
    """Return when an event was last seen; components of before events.k8s.io/v1 write the deprecated field."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")
