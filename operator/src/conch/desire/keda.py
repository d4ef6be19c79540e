"""What drives a revision's pods where KEDA does: a ScaledObject, of which KEDA makes an autoscaler of its own.

The words of the spec become KEDA's triggers: its own are handed on as they stand, Triton's are asked of
Prometheus, CPU and memory of the metrics API. (keda.sh/docs, "ScaledObject specification" and the scalers'
pages.) What Conch does not say here, such as pollingInterval, is whoever's who says it.
"""

from typing import Any, Final

from conch.api import Predictor
from conch.api.autoscaling import Metric
from conch.api.kinds import DEPLOYMENT, SCALED_OBJECT
from conch.api.meta import Manifest, child
from conch.api.metrics import DEFAULT_RATIO, TritonMetric, of_resource, targets
from conch.api.quantity import to_decimal
from conch.decide import RevisionReplicas
from conch.observe import Track
from conch.triton.promql import PER_POD, build_promql
from conch_contract import names

_CPU_SHARE: Final = "80"


def scaled_object(track: Track, replicas: RevisionReplicas) -> Manifest | None:
    """Build a revision's ScaledObject; None where nothing that the service says can be said to KEDA."""
    predictor = track.service.spec.predictor
    found = triggers(track, replicas.name)
    if not found:
        return None
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "name": replicas.name,
        },
        "minReplicaCount": 0 if replicas.may_scale_to_zero else replicas.minimum,
        "maxReplicaCount": max(predictor.max_replicas or 1, replicas.minimum),
        "triggers": found,
    }
    behavior = predictor.autoscaling.behavior if predictor.autoscaling else None
    if behavior is not None:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": behavior.to_wire()}}
        calm = (behavior.scale_down or {}).get("stabilizationWindowSeconds")
        if calm is not None:
            spec["cooldownPeriod"] = calm  # the autoscaler's word for all pods but the last, and the same default
    return {**child(track.service, SCALED_OBJECT, replicas.name, replicas.name), "spec": spec}


def triggers(track: Track, revision: str) -> list[dict[str, Any]]:
    """Return a revision's ScaleTriggers: the user's own, and those that the other words stand for."""
    predictor = track.service.spec.predictor
    said = predictor.autoscaling
    named = [_asked(track, revision, metric, target) for metric, target in targets(said) if track.prometheus]
    passed = [trigger for metric in said.metrics if (trigger := _resource(metric))] if said else []
    own = [{"metadata": {}, **trigger.to_wire()} for trigger in said.triggers] if said else []
    if said and (said.triggers or said.metrics or any(targets(said))):
        return [*own, *named, *passed]
    return _default(track, revision, predictor)


def _default(track: Track, revision: str, predictor: Predictor) -> list[dict[str, Any]]:
    """What is followed where the spec says nothing."""
    ratio = _asked(track, revision, TritonMetric.QUEUE_TO_COMPUTE_RATIO, DEFAULT_RATIO)
    by_cpu = predictor.resources.has_cpu_request and not predictor.resources.has_gpus
    of_cpu = {"containerName": names.TRITON_CONTAINER, "value": _CPU_SHARE}
    cpu = {"type": "cpu", "metricType": "Utilization", "metadata": of_cpu}
    return [*([ratio] if track.prometheus else []), *([cpu] if by_cpu else [])]


def _asked(track: Track, revision: str, metric: TritonMetric, target: str) -> dict[str, Any]:
    """Ask Prometheus about all pods of a revision, by the names that its ReplicaSet gives them."""
    matchers = f'namespace="{track.key.namespace}",pod=~"{revision}-[a-z0-9]+-[a-z0-9]{{5}}"'
    return {
        "type": "prometheus",
        "metricType": "AverageValue" if metric in PER_POD else "Value",
        "metadata": {
            "serverAddress": track.prometheus,
            "query": build_promql(metric, matchers, model=track.service.model_name),
            "threshold": to_decimal(target),
        },
    }


def _resource(metric: Metric) -> dict[str, Any] | None:
    """CPU or memory, which KEDA leaves to the metrics API; None where it is something else."""
    said = of_resource(metric)
    if said is None:
        return None
    container = {"containerName": said.container} if said.container else {}
    return {"type": said.name, "metricType": said.type, "metadata": {**container, "value": said.value}}
