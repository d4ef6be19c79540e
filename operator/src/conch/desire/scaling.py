"""The autoscaler of a revision: a HorizontalPodAutoscaler, or a ScaledObject of KEDA."""

from typing import Any, Final

from conch.api import InferenceService, Predictor
from conch.api.kinds import AUTOSCALER, DEPLOYMENT
from conch.api.meta import Manifest, child
from conch.api.metrics import DEFAULT_RATIO, MetricsApi, TritonMetric, targets
from conch.decide import Workload
from conch.desire.keda import build_scaled_object
from conch.observe import Track
from conch_contract import names


def is_autoscaled(service: InferenceService, workload: Workload) -> bool:
    """Whether an autoscaler sets a revision's replicas. A revision without pods has no autoscaler."""
    return service.spec.predictor.scales and workload.minimum > 0


def build_autoscaler(track: Track, workload: Workload) -> Manifest:
    """Build the HorizontalPodAutoscaler of a revision, or the ScaledObject for which KEDA creates one."""
    by_keda = build_scaled_object(track, workload) if track.metrics_api == "keda" else None
    return by_keda or _build_horizontal(track, workload)


def _build_horizontal(track: Track, workload: Workload) -> Manifest:
    service, predictor = track.service, track.service.spec.predictor
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "name": workload.name,
        },
        "minReplicas": workload.minimum,
        "maxReplicas": max(predictor.max_replicas or 1, workload.minimum),
    }
    if metrics := _build_metrics(predictor, track.metrics_api):
        spec["metrics"] = metrics  # absent: the API server's default, 80 % CPU utilization
    if predictor.autoscaling and predictor.autoscaling.behavior:
        spec["behavior"] = predictor.autoscaling.behavior.to_wire()
    return {**child(service, AUTOSCALER, workload.name, workload.name), "spec": spec}


def _build_metrics(predictor: Predictor, metrics_api: MetricsApi) -> list[dict[str, Any]]:
    """Return the MetricSpecs of the spec, and those of its metrics of Triton."""
    spec = predictor.autoscaling
    is_served = metrics_api in {"builtin", "prometheus-adapter"}
    triton = [_build_pods_metric(metric, target) for metric, target in targets(spec) if is_served]
    own = [metric.to_wire() for metric in spec.metrics] if spec else []
    if triton or own:
        return [*triton, *own]
    default = [_build_pods_metric(TritonMetric.QUEUE_TO_COMPUTE_RATIO, DEFAULT_RATIO)] if is_served else []
    by_cpu = predictor.resources.has_cpu_request and not predictor.resources.has_gpus
    return [*default, *([_CPU] if by_cpu else [])]


def _build_pods_metric(metric: TritonMetric, target: str) -> dict[str, Any]:
    return {
        "type": "Pods",
        "pods": {"metric": {"name": metric.value}, "target": {"type": "AverageValue", "averageValue": target}},
    }


# A pod without a CPU request has no CPU utilization, and an HPA that lacks one metric does not scale down.
_CPU: Final = {
    "type": "ContainerResource",
    "containerResource": {
        "name": "cpu",
        "container": names.TRITON_CONTAINER,
        "target": {"type": "Utilization", "averageUtilization": 80},
    },
}
