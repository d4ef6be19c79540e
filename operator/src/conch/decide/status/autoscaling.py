"""The condition Autoscaling: which fields have no effect, and what the autoscaler's own conditions report.

A field without effect is reported, and the others keep theirs: what serves, serves on.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from conch.api import ConditionType
from conch.api.autoscaling import Autoscaling
from conch.api.metrics import of_resource, targets
from conch.api.reasons import Reason
from conch.decide.status.condition import PendingCondition, Truth
from conch.observe import Finding, Track

_KIND: Final = ConditionType.AUTOSCALING
_FOLLOWS: Final = "The autoscaler follows its metrics."


def build_autoscaling_condition(track: Track, serving: str) -> PendingCondition:
    """Return the condition of a service that scales, of whose revisions one serves."""
    spec = track.service.spec.predictor.autoscaling or Autoscaling()
    for check in _CHECKS:
        found = check(track, spec)
        if found is not None:
            return PendingCondition(_KIND, "False", found.reason, found.message)
    return next(chain(_scaled_object(track, serving), _horizontal(track, serving)), _PENDING)


def _needs_keda(track: Track, spec: Autoscaling) -> Finding | None:
    """Return the finding for triggers without KEDA."""
    if track.metrics_api == "keda" or not spec.triggers:
        return None
    zero = "" if track.service.spec.predictor.min_replicas else ", and minReplicas 0 counts as 1"
    return Finding(
        Reason.NEEDS_KEDA,
        f"predictor.autoscaling.triggers has no effect{zero}: Conch was installed with autoscaling.metricsApi"
        f" {track.metrics_api}. Install it with keda, and KEDA beside it, or remove the triggers.",
    )


def _not_for_keda(track: Track, spec: Autoscaling) -> Finding | None:
    """Return the finding for metrics of autoscaling/v2 that KEDA does not take: all but CPU and memory."""
    others = [metric.type for metric in spec.metrics if of_resource(metric) is None]
    has_triggers = spec.triggers or len(others) < len(spec.metrics) or (track.prometheus and any(targets(spec)))
    if track.metrics_api != "keda" or not others or not has_triggers:
        return None  # without a trigger for KEDA, an autoscaler of Conch's own has them
    return Finding(
        Reason.NOT_FOR_KEDA,
        f"KEDA follows no metrics of type {' and '.join(dict.fromkeys(others))} beside its triggers; write"
        " them as predictor.autoscaling.triggers, such as one of type prometheus, and remove them from metrics.",
    )


def _no_metrics_api(track: Track, spec: Autoscaling) -> Finding | None:
    """Return the finding for targets of Triton's metrics that no API serves."""
    unknown = track.metrics_api == "none" or (track.metrics_api == "keda" and not track.prometheus)
    metrics = [metric.value for metric, _ in targets(spec)]
    if not unknown or not metrics:
        return None
    if track.metrics_api == "keda":
        why = (
            "KEDA reads them from Prometheus, and Conch was installed without autoscaling.prometheus. Set it to its URL"
        )
    else:
        why = "Conch was installed with autoscaling.metricsApi none. Install it with builtin"
    return Finding(
        Reason.NO_METRICS_API,
        f"Autoscalers get no {' and '.join(metrics)}: {why},"
        " or write predictor.autoscaling.metrics that the cluster has.",
    )


_CHECKS: Final[tuple[Callable[[Track, Autoscaling], Finding | None], ...]] = (
    _needs_keda,
    _not_for_keda,
    _no_metrics_api,
)
_PENDING: Final = PendingCondition(_KIND, "Unknown", Reason.PENDING, "The autoscaler has not read its metrics yet.")


def _scaled_object(track: Track, serving: str) -> Iterator[PendingCondition]:
    """Yield the condition of a revision's ScaledObject: the first of its own that is not good."""
    driven = track.scaled_object(track.workload_of(serving))
    if driven is None:
        return
    conditions = {c["type"]: c for c in (driven.get("status") or {}).get("conditions") or ()}
    for kind, good in (("Paused", "False"), ("Ready", "True"), ("HPAActive", "True")):
        condition = conditions.get(kind, {"status": "Unknown"})
        if condition["status"] not in {good, "Unknown"}:
            reason = condition.get("reason") or kind
            yield PendingCondition(_KIND, "False", reason, f"KEDA: {condition.get('message') or reason}")
    ready = conditions.get("Ready", {}).get("status") == "True"
    yield PendingCondition(_KIND, "True", Reason.TRIGGERS_FOLLOWED, "KEDA follows its triggers.") if ready else _PENDING


def _horizontal(track: Track, serving: str) -> Iterator[PendingCondition]:
    """Yield the condition of a revision's HorizontalPodAutoscaler."""
    for condition in ((track.autoscaler(track.workload_of(serving)) or {}).get("status") or {}).get("conditions") or ():
        if condition["type"] == "ScalingActive":
            truth: Truth = "True" if condition["status"] == "True" else "False"
            # The message of a healthy HPA names numbers that change all the time.
            message = _FOLLOWS if truth == "True" else condition.get("message", "")
            yield PendingCondition(_KIND, truth, condition.get("reason", "Scaling"), message)
