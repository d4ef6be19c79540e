"""What owns the number of a revision's pods: its HorizontalPodAutoscaler, or KEDA's word for it."""

from typing import Any, Final

from conch.api import InferenceService, Predictor
from conch.api.kinds import AUTOSCALER, DEPLOYMENT
from conch.api.meta import Manifest, child
from conch.api.metrics import DEFAULT_RATIO, MetricsApi, TritonMetric, targets
from conch.decide import RevisionReplicas
from conch.desire.keda import scaled_object
from conch.observe import Track
from conch_contract import names


def scaled(service: InferenceService, replicas: RevisionReplicas) -> bool:
    """Whether an autoscaler owns a revision's replicas; one that is drained has none: it shall have no pod."""
    return service.spec.predictor.scales and replicas.minimum > 0


def autoscaler(track: Track, replicas: RevisionReplicas) -> Manifest:
    """Build a revision's HorizontalPodAutoscaler, or the ScaledObject of which KEDA makes one."""
    driven = scaled_object(track, replicas) if track.metrics_api == "keda" else None
    return driven or _horizontal(track, replicas)


def _horizontal(track: Track, replicas: RevisionReplicas) -> Manifest:
    service, predictor = track.service, track.service.spec.predictor
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "name": replicas.name,
        },
        "minReplicas": replicas.minimum,
        "maxReplicas": max(predictor.max_replicas or 1, replicas.minimum),
    }
    if metrics := _metrics(predictor, track.metrics_api):
        spec["metrics"] = metrics  # none: the API server's own default, 80 % of the CPU that pods ask for
    if predictor.autoscaling and predictor.autoscaling.behavior:
        spec["behavior"] = predictor.autoscaling.behavior.to_wire()
    return {**child(service, AUTOSCALER, replicas.name, replicas.name), "spec": spec}


def _metrics(predictor: Predictor, metrics_api: MetricsApi) -> list[dict[str, Any]]:
    """Return the MetricSpecs: the user's own, and those that the short words stand for."""
    said = predictor.autoscaling
    answered = metrics_api in {"builtin", "prometheus-adapter"}
    named = [_of_pods(metric, target) for metric, target in targets(said) if answered]
    passed = [metric.to_wire() for metric in said.metrics] if said else []
    if named or passed:
        return [*named, *passed]
    default = [_of_pods(TritonMetric.QUEUE_TO_COMPUTE_RATIO, DEFAULT_RATIO)] if answered else []
    by_cpu = predictor.resources.has_cpu_request and not predictor.resources.has_gpus
    return [*default, *([_CPU] if by_cpu else [])]


def _of_pods(metric: TritonMetric, target: str) -> dict[str, Any]:
    return {
        "type": "Pods",
        "pods": {"metric": {"name": metric.value}, "target": {"type": "AverageValue", "averageValue": target}},
    }


# Of a pod without a request for CPU no share can be told, and an HPA that misses one metric never scales down.
_CPU: Final = {
    "type": "ContainerResource",
    "containerResource": {
        "name": "cpu",
        "container": names.TRITON_CONTAINER,
        "target": {"type": "Utilization", "averageUtilization": 80},
    },
}
