"""The metrics that Conch gives autoscalers: their names, and the words of the spec that ask for them.

The names are those of custom.metrics.k8s.io, so that a HorizontalPodAutoscaler asks alike whoever answers: Conch
itself, or prometheus-adapter by the rules that the chart makes.
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
"""Who answers when an autoscaler asks for Triton's metrics; the installer's choice."""


class TritonMetric(StrEnum):
    """What is told of a pod. Units: seconds, requests, and shares of 1."""

    QUEUE_TO_COMPUTE_RATIO = "triton_queue_to_compute_ratio"
    PENDING_REQUESTS = "triton_pending_requests"
    REQUESTS_PER_SECOND = "triton_requests_per_second"
    INFERENCE_LATENCY = "triton_inference_latency_seconds"
    GPU_UTILIZATION = "triton_gpu_utilization"


DEFAULT_RATIO: Final = "1"
_TARGETS: Final = frozenset({"Utilization", "AverageValue"})


def targets(said: Autoscaling | None) -> Iterator[tuple[TritonMetric, str]]:
    """Yield the metrics that a spec names by their short words, and each one's average a pod, as a Quantity.

    >>> list(targets(Autoscaling(inference_latency="50ms", gpu_utilization="70%")))
    [(<TritonMetric.INFERENCE_LATENCY: 'triton_inference_latency_seconds'>, '50m'), \
(<TritonMetric.GPU_UTILIZATION: 'triton_gpu_utilization'>, '700m')]
    """
    if said is None:
        return
    if said.queue_to_compute_ratio is not None:
        yield TritonMetric.QUEUE_TO_COMPUTE_RATIO, str(said.queue_to_compute_ratio)
    if said.pending_requests is not None:
        yield TritonMetric.PENDING_REQUESTS, str(said.pending_requests)
    if said.requests_per_second is not None:
        yield TritonMetric.REQUESTS_PER_SECOND, str(said.requests_per_second)
    if said.inference_latency is not None:
        yield TritonMetric.INFERENCE_LATENCY, format_quantity(Fraction(duration_seconds(said.inference_latency)))
    if said.gpu_utilization is not None:
        yield TritonMetric.GPU_UTILIZATION, format_quantity(percent(said.gpu_utilization))


@dataclass(frozen=True)
class OfResource:
    """A target for the CPU or the memory of pods, or of one container of each."""

    name: str  # cpu or memory
    type: str  # Utilization, in percent of what is asked for, or AverageValue, a Quantity
    value: str
    container: str = ""


def of_resource(metric: Metric) -> OfResource | None:
    """Return what a metric says of CPU or memory; None where it is of something else, or makes no sense."""
    source = metric.resource or metric.container_resource or {}
    target = source.get("target") or {}
    value = target.get("averageUtilization" if target.get("type") == "Utilization" else "averageValue")
    if source.get("name") not in {"cpu", "memory"} or target.get("type") not in _TARGETS or value is None:
        return None
    return OfResource(source["name"], target["type"], str(value), source.get("container", ""))
