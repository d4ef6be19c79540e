"""How many replicas a service has, and how many it shall have: its status, and its autoscalers' word. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from conch.api import InferenceService


def replicas(service: InferenceService, autoscalers: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the pods that are ready, and those that are desired, over all living revisions.

    What an autoscaler desires counts as soon as it says so; without one it is what the operator wants.
    """
    desired = {
        scaler["spec"]["scaleTargetRef"]["name"]: int((scaler.get("status") or {}).get("desiredReplicas") or 0)
        for scaler in autoscalers
    }
    living = service.status.revisions
    return (
        sum(revision.replicas.ready for revision in living),
        sum(desired.get(revision.name) or revision.replicas.wanted for revision in living),
    )
