"""Ready and desired replicas of a service, from its status and its autoscalers. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from conch.api import InferenceService


def count_replicas(service: InferenceService, autoscalers: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the ready and the desired replicas, over all revisions with pods.

    Desired replicas are those in the status of an autoscaler, which changes first; without one those of the operator.
    """
    desired = {
        scaler["spec"]["scaleTargetRef"]["name"]: int((scaler.get("status") or {}).get("desiredReplicas") or 0)
        for scaler in autoscalers
    }
    revisions = service.status.revisions
    return (
        sum(revision.replicas.ready for revision in revisions),
        sum(desired.get(revision.name) or revision.replicas.desired for revision in revisions),
    )
