"""The condition Autoscaling: what of the service's words nobody follows, and what the autoscaler says of itself.

A word that cannot be followed is told, and takes nothing from the others: what serves, serves on.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from conch.api import ConditionType
from conch.api.autoscaling import Autoscaling
from conch.api.metrics import of_resource, targets
from conch.decide.verdict import Truth, Verdict
from conch.observe import Finding, Snapshot

_KIND: Final = ConditionType.AUTOSCALING
_FOLLOWS: Final = "The autoscaler follows its metrics."


def autoscaling(snapshot: Snapshot, serving: str) -> Verdict:
    """Return the condition of a service that scales, of whose revisions one serves."""
    said = snapshot.service.spec.predictor.autoscaling or Autoscaling()
    for check in _CHECKS:
        unheard = check(snapshot, said)
        if unheard is not None:
            return Verdict(_KIND, "False", unheard.reason, unheard.message)
    return next(chain(_scaled_object(snapshot, serving), _horizontal(snapshot, serving)), _PENDING)


def _needs_keda(snapshot: Snapshot, said: Autoscaling) -> Finding | None:
    """Triggers are KEDA's."""
    if snapshot.metrics_api == "keda" or not said.triggers:
        return None
    zero = "" if snapshot.service.spec.predictor.min_replicas else ", and minReplicas 0 counts as 1"
    return Finding(
        "NeedsKeda",
        f"Nobody follows predictor.autoscaling.triggers{zero}: Conch was installed with autoscaling.metricsApi"
        f" {snapshot.metrics_api}. Install it with keda, and KEDA beside it, or remove the triggers.",
    )


def _not_for_keda(snapshot: Snapshot, said: Autoscaling) -> Finding | None:
    """KEDA takes triggers, and no metrics of autoscaling/v2 but those of CPU and memory."""
    others = [metric.type for metric in said.metrics if of_resource(metric) is None]
    heard = said.triggers or len(others) < len(said.metrics) or (snapshot.prometheus and any(targets(said)))
    if snapshot.metrics_api != "keda" or not others or not heard:
        return None  # where KEDA has nothing to follow, an autoscaler of Conch's own follows them
    return Finding(
        "NotForKeda",
        f"KEDA follows no metrics of type {' and '.join(dict.fromkeys(others))} beside its triggers; say the same in"
        " predictor.autoscaling.triggers, such as one of type prometheus, and remove them from metrics.",
    )


def _no_metrics_api(snapshot: Snapshot, said: Autoscaling) -> Finding | None:
    """Somebody has to tell what Triton feels."""
    unknown = snapshot.metrics_api == "none" or (snapshot.metrics_api == "keda" and not snapshot.prometheus)
    asked = [metric.value for metric, _ in targets(said)]
    if not unknown or not asked:
        return None
    if snapshot.metrics_api == "keda":
        why = "KEDA asks Prometheus for them, and Conch was installed without autoscaling.prometheus. Set it to its URL"
    else:
        why = "Conch was installed with autoscaling.metricsApi none. Install it with builtin"
    return Finding(
        "NoMetricsApi",
        f"Nobody tells autoscalers {' and '.join(asked)}: {why},"
        " or say predictor.autoscaling.metrics that the cluster has.",
    )


_CHECKS: Final[tuple[Callable[[Snapshot, Autoscaling], Finding | None], ...]] = (
    _needs_keda,
    _not_for_keda,
    _no_metrics_api,
)
_PENDING: Final = Verdict(_KIND, "Unknown", "Pending", "The autoscaler has not looked yet.")


def _scaled_object(snapshot: Snapshot, serving: str) -> Iterator[Verdict]:
    """What KEDA says of a revision's ScaledObject: the first of its conditions that is not as it should be."""
    driven = snapshot.scaled_object(serving)
    if driven is None:
        return
    told = {c["type"]: c for c in (driven.get("status") or {}).get("conditions") or ()}
    for kind, good in (("Paused", "False"), ("Ready", "True"), ("HPAActive", "True")):
        condition = told.get(kind, {"status": "Unknown"})
        if condition["status"] not in {good, "Unknown"}:
            reason = condition.get("reason") or kind
            yield Verdict(_KIND, "False", reason, f"KEDA: {condition.get('message') or reason}")
    ready = told.get("Ready", {}).get("status") == "True"
    yield Verdict(_KIND, "True", "TriggersFollowed", "KEDA follows its triggers.") if ready else _PENDING


def _horizontal(snapshot: Snapshot, serving: str) -> Iterator[Verdict]:
    """What a revision's HorizontalPodAutoscaler says of itself."""
    for condition in ((snapshot.autoscaler(serving) or {}).get("status") or {}).get("conditions") or ():
        if condition["type"] == "ScalingActive":
            truth: Truth = "True" if condition["status"] == "True" else "False"
            # The message of a healthy HPA names numbers that change all the time.
            told = _FOLLOWS if truth == "True" else condition.get("message", "")
            yield Verdict(_KIND, truth, condition.get("reason", "Scaling"), told)
