"""The rollout of one candidate: its steps, its waits, and what users request of it."""

from conch.decide.rollout.request import Request, annotation, build_request_status
from conch.decide.rollout.steps import Observation, advance, restart_failed
from conch.decide.rollout.waits import is_stable_late, seconds_to_wait, track_stable

__all__ = [
    "Observation",
    "Request",
    "advance",
    "annotation",
    "build_request_status",
    "is_stable_late",
    "restart_failed",
    "seconds_to_wait",
    "track_stable",
]
