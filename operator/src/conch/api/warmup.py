"""How a model is warmed before users reach it: with which requests, until when, and held to which answers."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field

from conch.api._base import UNREADABLE, Duration, ObjectName, Part, Scalars, duration_seconds, nested
from conch.api.cel import Rule, rules
from conch.api.numbers import Percent
from conch.api.text import Text
from conch_contract import WarmupReport

Shape = Annotated[tuple[Annotated[int, Field(ge=0, le=2_147_483_647)], ...], Field(max_length=16)]
_VALUES: Final = Field(json_schema_extra=nested(16))
_SOURCES: Final = "[has(self.requests) && self.requests.size() > 0, has(self.configMapRef), has(self.path)]"


class InputTensor(Part):
    """An input of a request (KServe v2 JSON): name, datatype, shape, and data: a list of values, nested or flat."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """The input's name."""
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP32",
        "FP64",
        "BYTES",
    ]
    """Its datatype. FP16 and BF16 have no JSON form in Triton: leave out requests, and one is made."""
    shape: Shape
    """Its shape, with the batch's dimension where the model takes batches."""
    data: Annotated[Any, _VALUES]
    """Its values: a list of numbers, booleans or texts, nested like the shape or flat."""
    parameters: Scalars | None = None
    """Parameters of the input."""


class OutputTensor(Part):
    """An output of an answer: name, data, and shape where it matters."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """The output's name."""
    datatype: Annotated[str | None, Field(max_length=16)] = None
    """Its datatype; it is not compared."""
    shape: Shape | None = None
    """Its shape. Absent: any that has as many values."""
    data: Annotated[Any, _VALUES]
    """Its values, nested or flat."""
    parameters: Scalars | None = None
    """Parameters of the output; they are not compared."""


class WarmupRequest(Part):
    """One request, as a client would post it, and the answer that is expected, if it is to be checked."""

    name: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    """What messages call it."""
    inputs: Annotated[tuple[InputTensor, ...], Field(min_length=1, max_length=32)]
    """The inputs, as in a request to /v2/models/<model>/infer."""
    parameters: Scalars | None = None
    """Parameters of the request."""
    expected: Annotated[tuple[OutputTensor, ...], Field(max_length=32)] = ()
    """Outputs that the answer must have. Empty: any answer is right."""


class ConfigMapRef(Part):
    """A ConfigMap of the service's namespace."""

    name: ObjectName
    """The ConfigMap's name."""


class Stable(Part):
    """When the latency is stable: a percentile of one round of requests is near that of the round before."""

    percentile: Literal[50, 90, 95, 99] = 99
    """The percentile of the latency."""
    within: Percent = "20%"
    """How far it may be from that of the round before."""


class Warmup(Part):
    """How the model is warmed before users reach it.

    In each pod before it is ready, and through its Service before a new revision's first share of the requests.
    Without requests, configMapRef and path a request is made from the model's own metadata.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"{_SOURCES}.filter(set, set).size() <= 1",
                message="warmup takes its requests from one place; keep one of requests, configMapRef and path, or"
                " none of them",
            ),
        )
    )

    requests: Annotated[tuple[WarmupRequest, ...], Field(max_length=16)] = ()
    """The requests themselves."""
    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap that holds one request a key: a JSON body, and beside its inputs, expected, if it is checked."""
    path: Annotated[
        str | None,
        Field(max_length=256),
        Rule(
            "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$')",
            message="path is a folder inside storageUri, relative and without '.' and '..'; write it such as warmup",
        ),
    ] = None
    """A folder inside storageUri that holds one request a file: JSON as in a ConfigMap, named *.json."""
    tolerance: Percent = "0.1%"
    """How far a floating-point output may be from the expected one: a share of it, at least of 1."""
    stable: Stable = Stable()
    """When the model counts as warm."""
    timeout: Annotated[
        Duration,
        Rule(
            f"{UNREADABLE} || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))",
            message="timeout must be from 1s to 1h, such as 5m",
        ),
    ] = "5m"
    """How long a warm-up may take. A model that answers but is not stable by then is taken as it is, and told."""

    @property
    def timeout_seconds(self) -> float:
        """The timeout in seconds."""
        return duration_seconds(self.timeout)


class WarmupStatus(Part):
    """What the warm-up of a revision saw."""

    requests: int = 0
    """Requests sent."""
    failures: int = 0
    """How many of them were refused, answered wrongly or not at all."""
    p50: str = ""
    """The median of the latency, such as 4.1ms."""
    p99: str = ""
    """Its 99th percentile."""
    requests_per_second: str = ""
    """The throughput, with one request at a time for each instance of the model."""
    stable: bool = False
    """Whether the latency settled before the timeout."""
    reason: Text = ""
    """WarmedUp, WarmupNotStable, or why it failed, in one CamelCase word."""
    message: Text = ""
    """Why it failed or did not settle, in a sentence."""

    @classmethod
    def of(cls, report: WarmupReport) -> Self:
        """Return what of a report a status shows; the numbers are text, as the API's conventions ask."""
        return cls(
            requests=report.requests,
            failures=report.failures,
            p50=f"{report.p50_milliseconds:.1f}ms",
            p99=f"{report.p99_milliseconds:.1f}ms",
            requests_per_second=f"{report.requests_per_second:.1f}",
            stable=report.stable,
            reason=report.reason,
            message=report.message,
        )

    @property
    def failed(self) -> bool:
        """Whether the revision must get no request. An unstable latency is no failure."""
        return WarmupReport(reason=self.reason).has_failed
