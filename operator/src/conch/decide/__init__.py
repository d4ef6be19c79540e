"""Decisions and status of a service: functions from Snapshot to values. Pure.

`service` is the entry: it decides track by track (`track`), with the packages `strategies`, `gates`, `admission` and
`rollout`; `status` makes the status of it. Not here: manifests (`desire`), clocks, calls.
"""

from conch.decide.naming import revision_name
from conch.decide.requeue import (
    MeasurementRequest,
    ReportRequest,
    build_measurement_request,
    build_report_requests,
    find_stuck_objects,
)
from conch.decide.service import Decisions, decide
from conch.decide.status import (
    Event,
    FailedWrite,
    build_events,
    build_stalled_status,
    build_status,
    build_unreadable_status,
)
from conch.decide.track import Decision, needs_capacity
from conch.decide.workloads import Workload
from conch.observe import Finding

__all__ = [
    "Decision",
    "Decisions",
    "Event",
    "FailedWrite",
    "Finding",
    "MeasurementRequest",
    "ReportRequest",
    "Workload",
    "build_events",
    "build_measurement_request",
    "build_report_requests",
    "build_stalled_status",
    "build_status",
    "build_unreadable_status",
    "decide",
    "find_stuck_objects",
    "needs_capacity",
    "revision_name",
]
