"""The rollout of one candidate: its steps, its waits, and what users request of it."""

from conch.decide.rollout.gates import evaluate_gates, find_due_job
from conch.decide.rollout.request import Request, annotation, build_request_status, find_done
from conch.decide.rollout.steps import Observation, advance, restart_failed
from conch.decide.rollout.waits import seconds_to_wait

__all__ = [
    "Observation",
    "Request",
    "advance",
    "annotation",
    "build_request_status",
    "evaluate_gates",
    "find_done",
    "find_due_job",
    "restart_failed",
    "seconds_to_wait",
]
