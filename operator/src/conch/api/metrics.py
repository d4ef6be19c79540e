"""Metrics of Triton for autoscalers: their names, and the targets of a spec.

The names are those of custom.metrics.k8s.io. A HorizontalPodAutoscaler uses the same ones for each server of that API:
Conch, or prometheus-adapter with the rules of the chart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final, Literal

from conch.api._base import duration_seconds
from conch.api.autoscaling import Autoscaling, Metric
from conch.api.numbers import percent
from conch.api.quantity import format_quantity

METRICS_GROUP: Final = "custom.metrics.k8s.io"
METRICS_VERSION: Final = "v1beta2"
API_SERVICE_NAME: Final = f"{METRICS_VERSION}.{METRICS_GROUP}"

MetricsApi = Literal["builtin", "prometheus-adapter", "keda", "none"]
"""The server of Triton's metrics for autoscalers, a setting of the installation."""


class TritonMetric(StrEnum):
    """A metric of a pod. Units: seconds, requests, and shares of 1."""

    QUEUE_TO_COMPUTE_RATIO = "triton_queue_to_compute_ratio"
    PENDING_REQUESTS = "triton_pending_requests"
    REQUESTS_PER_SECOND = "triton_requests_per_second"
    INFERENCE_LATENCY = "triton_inference_latency_seconds"
    GPU_UTILIZATION = "triton_gpu_utilization"


DEFAULT_RATIO: Final = "1"
_TARGETS: Final = frozenset({"Utilization", "AverageValue"})


def targets(autoscaling: Autoscaling | None) -> Iterator[tuple[TritonMetric, str]]:
    """Yield the metrics of Triton in a spec, each with its target for a pod, as a Quantity.

    >>> list(targets(Autoscaling(inference_latency="50ms", gpu_utilization="70%")))
    [(<TritonMetric.INFERENCE_LATENCY: 'triton_inference_latency_seconds'>, '50m'), \
(<TritonMetric.GPU_UTILIZATION: 'triton_gpu_utilization'>, '700m')]
    """
    if autoscaling is None:
        return
    if autoscaling.queue_to_compute_ratio is not None:
        yield TritonMetric.QUEUE_TO_COMPUTE_RATIO, str(autoscaling.queue_to_compute_ratio)
    if autoscaling.pending_requests is not None:
        yield TritonMetric.PENDING_REQUESTS, str(autoscaling.pending_requests)
    if autoscaling.requests_per_second is not None:
        yield TritonMetric.REQUESTS_PER_SECOND, str(autoscaling.requests_per_second)
    if autoscaling.inference_latency is not None:
        yield TritonMetric.INFERENCE_LATENCY, format_quantity(Fraction(duration_seconds(autoscaling.inference_latency)))
    if autoscaling.gpu_utilization is not None:
        yield TritonMetric.GPU_UTILIZATION, format_quantity(percent(autoscaling.gpu_utilization))


@dataclass(frozen=True)
class ResourceTarget:
    """A target of the CPU or memory of pods, or of one container of each."""

    name: str  # cpu or memory
    type: str  # Utilization, in percent of the request, or AverageValue, a Quantity
    value: str
    container: str = ""


def of_resource(metric: Metric) -> ResourceTarget | None:
    """Return the target of a metric of CPU or memory; None: the metric is of another type, or not valid."""
    source = metric.resource or metric.container_resource or {}
    target = source.get("target") or {}
    value = target.get("averageUtilization" if target.get("type") == "Utilization" else "averageValue")
    if source.get("name") not in {"cpu", "memory"} or target.get("type") not in _TARGETS or value is None:
        return None
    return ResourceTarget(source["name"], target["type"], str(value), source.get("container", ""))
