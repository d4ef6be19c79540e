"""The gates of a rollout, which a candidate has to pass before it gets more requests, and their status.

Numbers of a status are text: they change when a gate is evaluated, and at no other time.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from conch.api._base import UNREADABLE, Duration, Part, duration_seconds
from conch.api.cel import Rule, rules
from conch.api.gate_metric import GateMetric, UnknownMetric
from conch.api.numbers import NUMBER_PATTERN, Number, Percent
from conch.api.parity import Parity
from conch.api.text import Text

# What gates that count requests ask for where minSamples is absent: of 20 requests, one failure is 5 %.
DEFAULT_SAMPLES: Final = 20
# Below a hundred requests Triton's percentile 99 passes over the slowest one (measured, 2.51).
DEFAULT_SAMPLES_P99: Final = 100

_URL: Final = "^https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?$"


def _at_least(field: str, low: str, high: str) -> Rule:
    """A duration within bounds; one that is none is told by its own rule."""
    return Rule(
        f"{UNREADABLE} || (duration(self) >= duration('{low}') && duration(self) <= duration('{high}'))",
        message=f"{field} must be between {low} and {high}; write one such as {'30s' if field == 'interval' else '5s'}",
        expression=f"'{field} ' + self + ' must be between {low} and {high}; write one such as"
        f" {'30s' if field == 'interval' else '5s'}'",
    )


class SuccessRate(GateMetric):
    """The share of requests that Triton answered without an error."""

    min: Percent
    """The least share, such as 99.9%."""

    @property
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""
        return "success-rate"

    @property
    def default_samples(self) -> int:
        """The requests that an evaluation needs where minSamples is absent."""
        return DEFAULT_SAMPLES


class Latency(GateMetric):
    """How long Triton takes for a request, from its arrival to its response; failed requests do not count."""

    percentile: Literal[50, 90, 95, 99] | None = None
    """The percentile that is compared: Triton's own, over the last minute, of the slowest pod. Absent: the mean."""
    max: Annotated[
        Duration,
        Rule(
            f"{UNREADABLE} || duration(self) > duration('0s')",
            message="no request takes no time: max must be above 0s; raise it, such as to 50ms",
        ),
    ]
    """The longest time, such as 50ms."""

    @property
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""
        return f"latency-p{self.percentile}" if self.percentile else "latency-mean"

    @property
    def default_samples(self) -> int:
        """The requests that an evaluation needs where minSamples is absent."""
        return DEFAULT_SAMPLES_P99 if self.percentile == 99 else DEFAULT_SAMPLES


class Prometheus(GateMetric):
    """A number from a Prometheus of yours."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.min) || has(self.max)",
                message="a query without a bound would always pass; set min, max or both",
            ),
            Rule(
                f"!has(self.min) || !has(self.max) || !string(self.min).matches('{NUMBER_PATTERN}')"
                f" || !string(self.max).matches('{NUMBER_PATTERN}')"
                " || double(string(self.min)) <= double(string(self.max))",
                message="no number is at least min and at most max here; lower min or raise max",
                expression="'min ' + string(self.min) + ' is above max ' + string(self.max)"
                " + ', so no number would pass; lower min or raise max'",
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
    """Where it is, as the operator reaches it: http://prometheus.monitoring:9090."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """PromQL with one number as its answer; {{service}}, {{namespace}}, {{revision}} and {{stable}} are filled in."""
    min: Number | None = None
    """The least number that passes."""
    max: Number | None = None
    """The largest number that passes."""
    timeout: Annotated[Duration, _at_least("timeout", "1s", "1m")] = "5s"
    """How long an answer may take."""

    @property
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""
        return "prometheus"


METRICS: Final = ("success_rate", "latency", "prometheus", "parity")
"""The fields of a gate of which exactly one is set."""
_WIRE_METRICS: Final = tuple(map(to_camel, METRICS))
_ONE_OF_THEM: Final = f"{', '.join(_WIRE_METRICS[:-1])} and {_WIRE_METRICS[-1]}"


class Gate(Part):
    """One metric of a revision and its bound: exactly one of successRate, latency, prometheus and parity."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"[{', '.join(f'has(self.{field})' for field in _WIRE_METRICS)}].filter(set, set).size() == 1",
                message=f"a gate has one metric: exactly one of {_ONE_OF_THEM}; make a gate of each",
            ),
            Rule(
                "!has(self.prometheus) || !has(self.minSamples)",
                message="a query counts no requests, so minSamples means nothing to it; remove minSamples,"
                " or let the query answer nothing until it has seen enough",
                path=".minSamples",
            ),
            Rule(
                "!has(self.parity) || !has(self.minSamples)",
                message="parity replays each request once, so minSamples means nothing to it; remove minSamples, or set"
                " parity.requests",
                path=".minSamples",
            ),
            Rule(
                "!has(self.parity) || !has(self.failureLimit) || self.failureLimit == 0",
                message="parity is evaluated once, so there is no failure to tolerate; remove failureLimit, or lower"
                " parity.minAgreement",
                path=".failureLimit",
            ),
        )
    )

    name: Annotated[str | None, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = None
    """Its name in status and events. Absent: that of its metric, such as success-rate or latency-p99."""
    success_rate: SuccessRate | None = None
    """The share of requests that Triton answered without an error."""
    latency: Latency | None = None
    """How long requests take in Triton."""
    prometheus: Prometheus | None = None
    """A number from a Prometheus of yours."""
    parity: Parity | None = None
    """Whether it answers as the stable revision does, on replayed requests; evaluated before its first share."""
    interval: Annotated[Duration, _at_least("interval", "1s", "10m")] = "10s"
    """The least time between two evaluations."""
    min_samples: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Requests that an evaluation needs: the window grows until there are so many.
    Absent: 20, and 100 for percentile 99."""
    failure_limit: Annotated[int, Field(ge=0, le=100)] = 0
    """How many evaluations may have a value outside the bound; with one more the gate fails."""

    @property
    def interval_seconds(self) -> float:
        """The least time between two evaluations, in seconds."""
        return duration_seconds(self.interval)

    @property
    def metric(self) -> GateMetric:
        """The metric that is set; UnknownMetric where a newer version of the CRD has let in one that is not known."""
        found = (getattr(self, field) for field in METRICS)
        return next((metric for metric in found if isinstance(metric, GateMetric)), UnknownMetric())

    @property
    def samples(self) -> int:
        """Requests that an evaluation needs; 0 where the metric counts none."""
        default = self.metric.default_samples
        return (self.min_samples or default) if default else 0


Gates = Annotated[
    tuple[Gate, ...],
    Field(max_length=16),
    Rule(
        "self.all(gate, !has(gate.name) || self.exists_one(other, has(other.name) && other.name == gate.name))",
        message="two gates have the same name; give each a name of its own",
    ),
    Rule(
        "self.filter(gate, has(gate.parity)).size() <= 1",
        message="requests are replayed once, so one gate asks for parity; name all outputs in it, or keep the"
        " strictest",
    ),
]
"""The gates of a rollout."""


class Verdict(StrEnum):
    """The result of a gate. Only Passed and Skipped let the rollout go on."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    SKIPPED = "Skipped"

    @property
    def lets_pass(self) -> bool:
        """Whether the rollout goes on."""
        return self in {Verdict.PASSED, Verdict.SKIPPED}


class GateStatus(Part):
    """The result of a gate, and what its next evaluation needs."""

    name: str
    """The gate's name."""
    verdict: str = Verdict.INCONCLUSIVE.value
    """Passed, Failed, Inconclusive or Skipped. Passed lets the rollout go on, and so does Skipped: the stable revision
    has had no ready pod for progressDeadline, so that a parity gate has nothing to compare with."""
    value: str = ""
    """The value of the last evaluation."""
    bound: str = ""
    """The bound of the value."""
    samples: int | None = None
    """The requests that the value is of."""
    failures: int = 0
    """Evaluations with a value outside the bound so far."""
    evaluated_at: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """When it was last evaluated; the next evaluation covers what came after."""
    message: Text = ""
    """The result in a sentence."""

    @property
    def lets_pass(self) -> bool:
        """Whether the rollout goes on; a verdict of another version of Conch does not let it."""
        return self.verdict in set(Verdict) and Verdict(self.verdict).lets_pass

    @classmethod
    def of(cls, gate: Gate) -> Self:
        """Return the status of a gate before its first evaluation."""
        return cls(name=gate.name or gate.metric.gate_name)


def named(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Return the gates with every name filled in, each of its own: latency-p99, latency-p99-2."""
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
