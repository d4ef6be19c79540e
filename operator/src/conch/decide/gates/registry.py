"""The metrics of gates: the class that evaluates each field of the spec."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from conch.api.analysis import Gate, Latency, Prometheus, SuccessRate
from conch.api.gate_metric import GateMetric, UnknownMetric
from conch.api.parity import Parity
from conch.decide.gates.job import JobMetric
from conch.decide.gates.latency import LatencyMetric
from conch.decide.gates.metric import Metric
from conch.decide.gates.parity import ParityMetric
from conch.decide.gates.prometheus import PrometheusMetric
from conch.decide.gates.success_rate import SuccessRateMetric
from conch.decide.gates.unknown import UnknownGateMetric

METRICS: Final[Mapping[type[GateMetric], type[Metric[Any]]]] = {
    SuccessRate: SuccessRateMetric,
    Latency: LatencyMetric,
    Prometheus: PrometheusMetric,
    Parity: ParityMetric,
    UnknownMetric: UnknownGateMetric,
}


def metric_of(gate: Gate) -> Metric[Any]:
    """Return the metric of a gate.

    Raises:
        KeyError: its spec has a metric without a row in `METRICS`.
    """
    return METRICS[type(gate.metric)](gate, gate.metric)


def list_job_metrics(gates: Iterable[Gate]) -> tuple[JobMetric[Any, Any], ...]:
    """Return the metrics that Jobs measure, each once, before the candidate gets requests of clients.

    Args:
        gates: The gates, each with its name (see `conch.api.analysis.named`).
    """
    metrics = (metric_of(gate) for gate in gates if gate.is_measured_once)
    return tuple(metric for metric in metrics if isinstance(metric, JobMetric))
