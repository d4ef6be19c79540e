"""The status of a service and its events, as functions of the decisions."""

from conch.decide.status.build import build_stalled_status, build_status, build_unreadable_status
from conch.decide.status.condition import FailedWrite
from conch.decide.status.events import Event, build_events

__all__ = [
    "Event",
    "FailedWrite",
    "build_events",
    "build_stalled_status",
    "build_status",
    "build_unreadable_status",
]
