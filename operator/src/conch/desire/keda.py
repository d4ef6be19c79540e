"""The ScaledObject of a revision, for which KEDA creates a HorizontalPodAutoscaler.

Triggers of the spec stay as they are. Metrics of Triton become triggers of type prometheus, and CPU and memory triggers
of these types (keda.sh/docs, "ScaledObject specification" and the pages of the scalers). Fields that Conch does not
set, such as pollingInterval, may be set by others.
"""

from typing import Any, Final

from conch.api import Predictor
from conch.api.autoscaling import Metric
from conch.api.kinds import DEPLOYMENT, SCALED_OBJECT
from conch.api.meta import Manifest, child
from conch.api.metrics import DEFAULT_RATIO, TritonMetric, of_resource, targets
from conch.api.quantity import to_decimal
from conch.decide import Workload
from conch.observe import Track
from conch.triton.promql import PER_POD, build_promql
from conch_contract import names

_CPU_SHARE: Final = "80"


def build_scaled_object(track: Track, workload: Workload) -> Manifest | None:
    """Build the ScaledObject of a revision; None: the service has no metric that KEDA supports."""
    predictor = track.service.spec.predictor
    found = build_triggers(track, workload.name)
    if not found:
        return None
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "name": workload.name,
        },
        "minReplicaCount": 0 if workload.may_scale_to_zero else workload.minimum,
        "maxReplicaCount": max(predictor.max_replicas or 1, workload.minimum),
        "triggers": found,
    }
    behavior = predictor.autoscaling.behavior if predictor.autoscaling else None
    if behavior is not None:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": behavior.to_wire()}}
        window = (behavior.scale_down or {}).get("stabilizationWindowSeconds")
        if window is not None:
            spec["cooldownPeriod"] = window  # the same for the last pod, with the same default
    return {**child(track.service, SCALED_OBJECT, workload.name, workload.name), "spec": spec}


def build_triggers(track: Track, revision: str) -> list[dict[str, Any]]:
    """Return the ScaleTriggers of a revision: those of the spec, and those of its metrics."""
    predictor = track.service.spec.predictor
    spec = predictor.autoscaling
    triton = [_build_trigger(track, revision, metric, target) for metric, target in targets(spec) if track.prometheus]
    resources = [trigger for metric in spec.metrics if (trigger := _convert_resource(metric))] if spec else []
    own = [{"metadata": {}, **trigger.to_wire()} for trigger in spec.triggers] if spec else []
    if spec and (spec.triggers or spec.metrics or any(targets(spec))):
        return [*own, *triton, *resources]
    return _build_default_triggers(track, revision, predictor)


def _build_default_triggers(track: Track, revision: str, predictor: Predictor) -> list[dict[str, Any]]:
    """Return the triggers of a spec without metrics and triggers."""
    ratio = _build_trigger(track, revision, TritonMetric.QUEUE_TO_COMPUTE_RATIO, DEFAULT_RATIO)
    by_cpu = predictor.resources.has_cpu_request and not predictor.resources.has_gpus
    of_cpu = {"containerName": names.TRITON_CONTAINER, "value": _CPU_SHARE}
    cpu = {"type": "cpu", "metricType": "Utilization", "metadata": of_cpu}
    return [*([ratio] if track.prometheus else []), *([cpu] if by_cpu else [])]


def _build_trigger(track: Track, revision: str, metric: TritonMetric, target: str) -> dict[str, Any]:
    """Return the trigger of a metric of Triton: a query for the pods of a revision, by name."""
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


def _convert_resource(metric: Metric) -> dict[str, Any] | None:
    """Return the trigger of a metric of CPU or memory; None: the metric is of another type."""
    target = of_resource(metric)
    if target is None:
        return None
    container = {"containerName": target.container} if target.container else {}
    return {"type": target.name, "metricType": target.type, "metadata": {**container, "value": target.value}}
