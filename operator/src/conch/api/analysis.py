"""Gates of a rollout, which a candidate has to pass before it gets more requests, and their status.

Numbers in the status are text. They change only when a gate is evaluated.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from conch.api._base import DurationText, Part, duration_rule, duration_seconds
from conch.api.cel import Rule, rules
from conch.api.gate_metric import GateMetric, JobGateMetric, RequestMetric, ResultMetric, UnknownMetric
from conch.api.numbers import NUMBER_PATTERN, Number, Percent
from conch.api.parity import Parity
from conch.api.text import Text

# Default of minSamples of gates that count requests: of 20 requests, one failure is 5 %.
DEFAULT_SAMPLES: Final = 20
# Below a hundred requests Triton's percentile 99 leaves out the slowest one (measured, 2.51).
DEFAULT_SAMPLES_P99: Final = 100

_URL: Final = "^https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?$"


class SuccessRate(RequestMetric):
    """Share of requests that Triton answered without an error."""

    min: Percent
    """Minimum success rate in percent, such as 99.9%."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return "success-rate"

    @property
    def default_samples(self) -> int:
        """Default of minSamples."""
        return DEFAULT_SAMPLES


class Latency(RequestMetric):
    """Latency of successful requests in Triton, from arrival to response."""

    percentile: Literal[50, 90, 95, 99] | None = None
    """Percentile of the latency: 50, 90, 95 or 99, as Triton computes it over the last minute, of the slowest pod.
    Absent: the mean latency."""
    max: Annotated[DurationText, duration_rule(low="1us", example="50ms")]
    """Maximum latency, a duration such as 50ms."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return f"latency-p{self.percentile}" if self.percentile else "latency-mean"

    @property
    def default_samples(self) -> int:
        """Default of minSamples."""
        return DEFAULT_SAMPLES_P99 if self.percentile == 99 else DEFAULT_SAMPLES


class Prometheus(ResultMetric):
    """Result of a PromQL query to a Prometheus server."""

    instead_of_min_samples: ClassVar[str] = (
        "which counts no requests; remove minSamples, or write a query that returns no result until it has enough data"
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.min) || has(self.max)",
                message="a prometheus gate needs a bound; set min, max or both",
            ),
            Rule(
                f"!has(self.min) || !has(self.max) || !string(self.min).matches('{NUMBER_PATTERN}')"
                f" || !string(self.max).matches('{NUMBER_PATTERN}')"
                " || double(string(self.min)) <= double(string(self.max))",
                message="min must not be above max; lower min or raise max",
                expression="'min ' + string(self.min) + ' is above max ' + string(self.max)"
                " + '; lower min or raise max'",
                path=".max",
            ),
        )
    )

    server: Annotated[
        str,
        Field(max_length=512),
        Rule(
            f"self.matches('{_URL}')",
            message="not the URL of a Prometheus; write it as http://host:port or https://host/prefix,"
            " without user, query and fragment",
        ),
    ]
    """URL of the Prometheus server, as the operator reaches it, such as http://prometheus.monitoring:9090."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """PromQL query that returns one number. {{service}}, {{namespace}}, {{revision}} (the candidate) and {{stable}} are
    replaced with names."""
    min: Number | None = None
    """Minimum value that passes. Absent: no minimum."""
    max: Number | None = None
    """Maximum value that passes. Absent: no maximum."""
    timeout: Annotated[DurationText, duration_rule("1s", "1m", example="5s")] = "5s"
    """Timeout of the query, between 1s and 1m."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return "prometheus"


METRICS: Final[Mapping[str, type[GateMetric]]] = {
    "success_rate": SuccessRate,
    "latency": Latency,
    "prometheus": Prometheus,
    "parity": Parity,
}
"""The fields of a gate of which exactly one is set. The rules of a gate follow from them."""
_WIRE_METRICS: Final = {to_camel(field): metric for field, metric in METRICS.items()}
JOB_METRICS: Final = {field: metric for field, metric in _WIRE_METRICS.items() if issubclass(metric, JobGateMetric)}
"""Those that Jobs measure, by the name in the CRD."""


def _build_gate_rules() -> Iterator[Rule]:
    """Yield the rules that follow from the metrics."""
    *fields, last = _WIRE_METRICS
    yield Rule(
        f"[{', '.join(f'has(self.{field})' for field in _WIRE_METRICS)}].filter(set, set).size() == 1",
        message=f"a gate has exactly one of {', '.join(fields)} and {last}; write one gate for each metric",
    )
    for field, metric in _WIRE_METRICS.items():
        if issubclass(metric, ResultMetric):
            yield Rule(
                f"!has(self.{field}) || !has(self.minSamples)",
                message=f"minSamples does not apply to a {field} gate, {metric.instead_of_min_samples}",
                path=".minSamples",
            )
    for field, metric in JOB_METRICS.items():
        yield Rule(
            f"!has(self.{field}) || !has(self.failureLimit) || self.failureLimit == 0",
            message=f"a {field} gate is evaluated once, so failureLimit must be 0; remove failureLimit, or"
            f" {metric.instead_of_failure_limit}",
            path=".failureLimit",
        )


class Gate(Part):
    """One metric of a revision and its bound: exactly one of successRate, latency, prometheus and parity."""

    model_config = ConfigDict(json_schema_extra=rules(*_build_gate_rules()))

    name: Annotated[str | None, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = None
    """Name of the gate in status and events. Absent: the name of its metric, such as success-rate or latency-p99."""
    success_rate: SuccessRate | None = None
    """Minimum success rate: the share of requests that Triton answered without an error."""
    latency: Latency | None = None
    """Maximum latency of requests in Triton."""
    prometheus: Prometheus | None = None
    """Bounds of the result of a query to a Prometheus server."""
    parity: Parity | None = None
    """Minimum share of replayed requests to which candidate and stable revision answer alike. It is evaluated once,
    before the candidate gets requests of clients."""
    interval: Annotated[DurationText, duration_rule("1s", "10m", example="30s")] = "10s"
    """Minimum time between two evaluations, between 1s and 10m."""
    min_samples: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Minimum number of requests of an evaluation. The window grows until it has them. Absent: 20, and 100 for
    percentile 99."""
    failure_limit: Annotated[int, Field(ge=0, le=100)] = 0
    """Number of evaluations that may be outside the bound. The gate fails with one more."""

    @property
    def interval_seconds(self) -> float:
        """Minimum time between two evaluations in seconds."""
        return duration_seconds(self.interval)

    @property
    def metric(self) -> GateMetric:
        """The metric that is set; UnknownMetric for a metric of a newer version of the CRD."""
        found = (getattr(self, field) for field in METRICS)
        return next((metric for metric in found if isinstance(metric, GateMetric)), UnknownMetric())

    @property
    def samples(self) -> int:
        """Minimum number of requests of an evaluation; 0: the metric counts no requests."""
        metric = self.metric
        return (self.min_samples or metric.default_samples) if isinstance(metric, RequestMetric) else 0

    @property
    def is_measured_once(self) -> bool:
        """Whether one measurement, before the candidate gets requests of clients, is its result."""
        return isinstance(self.metric, JobGateMetric)

    @property
    def needs_stable(self) -> bool:
        """Whether its measurement needs a ready pod of the stable revision."""
        return isinstance(self.metric, JobGateMetric) and self.metric.needs_stable


Gates = Annotated[
    tuple[Gate, ...],
    Field(max_length=16),
    Rule(
        "self.all(gate, !has(gate.name) || self.exists_one(other, has(other.name) && other.name == gate.name))",
        message="two gates have the same name; give each a name of its own",
    ),
    *(
        Rule(
            f"self.filter(gate, has(gate.{field})).size() <= 1",
            message=f"a rollout has at most one {field} gate; {metric.instead_of_another}",
        )
        for field, metric in JOB_METRICS.items()
    ),
]
"""The gates of a rollout."""


class Verdict(StrEnum):
    """The result of a gate. The rollout continues after Passed and Skipped."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    SKIPPED = "Skipped"

    @property
    def lets_pass(self) -> bool:
        """True if the rollout continues."""
        return self in {Verdict.PASSED, Verdict.SKIPPED}


class GateStatus(Part):
    """The result of a gate, and the state that its next evaluation needs."""

    name: str
    """Name of the gate."""
    verdict: str = Verdict.INCONCLUSIVE.value
    """Passed, Failed, Inconclusive or Skipped. The rollout continues after Passed and Skipped. Skipped: the stable
    revision had no ready pod for progressDeadline, so that a parity gate could not compare."""
    value: str = ""
    """Value at the last evaluation, with its unit."""
    bound: str = ""
    """Bound of the value, with its unit."""
    samples: int | None = None
    """Number of requests that the value is computed from."""
    failures: int = 0
    """Number of evaluations outside the bound."""
    evaluated_at: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Time of the last evaluation. The next one covers the requests after it."""
    message: Text = ""
    """Result of the gate in a sentence."""

    @property
    def lets_pass(self) -> bool:
        """True if the rollout continues; a verdict that this version of Conch does not know stops it."""
        return self.verdict in set(Verdict) and Verdict(self.verdict).lets_pass

    @classmethod
    def of(cls, gate: Gate) -> Self:
        """Return the status of a gate before its first evaluation."""
        return cls(name=gate.name or gate.metric.gate_name)


def named(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Return the gates, each with a unique name, such as latency-p99 and latency-p99-2."""
    gates = tuple(gates)
    taken = {gate.name for gate in gates if gate.name}
    out: list[Gate] = []
    for gate in gates:
        name, number = gate.name or gate.metric.gate_name, 2
        while not gate.name and name in taken:
            name, number = f"{gate.metric.gate_name}-{number}", number + 1
        taken.add(name)
        out.append(gate.model_copy(update={"name": name}))
    return tuple(out)
