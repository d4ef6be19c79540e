"""What shall be, and what is told: functions from Snapshot to values. Pure.

May not enter: manifests (that is `desire`), clocks, calls.
"""

from conch.decide.events import Event, events
from conch.decide.naming import revision_name
from conch.decide.replicas import Living
from conch.decide.requeue import MeasurementRequest, build_measurement_request, find_stuck_objects, pods_to_ask
from conch.decide.rollout import Decision, asks_for_room
from conch.decide.service import Decisions, decide
from conch.decide.status import build_status, build_unreadable_status, stalled
from conch.decide.verdict import Unwritten
from conch.observe import Finding

__all__ = [
    "Decision",
    "Decisions",
    "Event",
    "Finding",
    "Living",
    "MeasurementRequest",
    "Unwritten",
    "asks_for_room",
    "build_measurement_request",
    "build_status",
    "build_unreadable_status",
    "decide",
    "events",
    "find_stuck_objects",
    "pods_to_ask",
    "revision_name",
    "stalled",
]
