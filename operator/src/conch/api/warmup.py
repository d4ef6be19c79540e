"""Warm-up of a model before its first request of a client: requests, expected answers and stable latency."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field

from conch.api._base import ConfigMapRef, DurationText, Part, Scalars, duration_rule, duration_seconds, list_schema
from conch.api.cel import Rule, rules
from conch.api.numbers import Percent
from conch.api.text import Text
from conch_contract import WarmupReport

Shape = Annotated[tuple[Annotated[int, Field(ge=0, le=2_147_483_647)], ...], Field(max_length=16)]
_VALUES: Final = Field(json_schema_extra=list_schema(16))
_SOURCES: Final = "[has(self.requests) && self.requests.size() > 0, has(self.configMapRef), has(self.path)]"


class InputTensor(Part):
    """An input of a request (KServe v2 JSON)."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the input."""
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
    """Datatype of the input. FP16 and BF16 have no JSON form in Triton: remove requests, and one is generated."""
    shape: Shape
    """Shape of the input, with the batch dimension if the model has one."""
    data: Annotated[Any, _VALUES]
    """Values of the input: a list of numbers, booleans or strings, nested like the shape, or flat."""
    parameters: Scalars | None = None
    """Parameters of the input."""


class OutputTensor(Part):
    """An expected output of an answer."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the output."""
    datatype: Annotated[str | None, Field(max_length=16)] = None
    """Datatype of the output. It is not compared."""
    shape: Shape | None = None
    """Shape of the output. Absent: any shape with as many values."""
    data: Annotated[Any, _VALUES]
    """Values of the output: a list of numbers, booleans or strings, nested like the shape, or flat."""
    parameters: Scalars | None = None
    """Parameters of the output. They are not compared."""


class WarmupRequest(Part):
    """A request as clients send it, and its expected answer."""

    name: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    """Name of the request in messages."""
    inputs: Annotated[tuple[InputTensor, ...], Field(min_length=1, max_length=32)]
    """Inputs, as in a request to /v2/models/<model>/infer."""
    parameters: Scalars | None = None
    """Parameters of the request."""
    expected: Annotated[tuple[OutputTensor, ...], Field(max_length=32)] = ()
    """Expected outputs of the answer. Empty: the answer is not compared."""


class Stable(Part):
    """Criterion of a stable latency: a percentile of one round of requests is near that of the previous round."""

    percentile: Literal[50, 90, 95, 99] = 99
    """Percentile of the latency."""
    within: Percent = "20%"
    """Maximum difference from the previous round in percent, such as 20%."""


class ModelWarmup(Part):
    """Warm-up of a model of several before its first request of a client, in each pod before the pod is ready.

    Without configMapRef and path a request is generated from the model's metadata.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.configMapRef) || !has(self.path)",
                message="warmup has at most one of configMapRef and path; keep one of them",
            ),
        )
    )

    config_map_ref: ConfigMapRef | None = None
    """ConfigMap with a request in each key: JSON with inputs, and with expected if the answer is compared."""
    path: Annotated[
        str | None,
        Field(max_length=256),
        Rule(
            "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$')",
            message="path must be a relative path of a folder inside storageUri, without '.' and '..', such as warmup",
        ),
    ] = None
    """Folder inside storageUri with a request in each file *.json, as in a ConfigMap."""
    tolerance: Percent = "0.1%"
    """Tolerance of floating-point outputs, in percent of the larger of 1 and the expected absolute value."""
    stable: Stable = Stable()
    """Criterion of a stable latency, at which the warm-up ends."""
    timeout: Annotated[DurationText, duration_rule("1s", "1h", example="5m")] = "5m"
    """Maximum duration, between 1s and 1h. A model whose latency is not stable by then is ready, with the reason
    WarmupNotStable."""

    @property
    def timeout_seconds(self) -> float:
        """The timeout in seconds."""
        return duration_seconds(self.timeout)


class Warmup(ModelWarmup):
    """Warm-up of the model before its first request of a client.

    It runs in each pod before the pod is ready, and through the Service of a new revision before its first weight.
    Without requests, configMapRef and path a request is generated from the model's metadata.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"{_SOURCES}.filter(set, set).size() <= 1",
                message="warmup has at most one of requests, configMapRef and path; keep one of them",
            ),
        )
    )

    requests: Annotated[tuple[WarmupRequest, ...], Field(max_length=16)] = ()
    """Requests of the warm-up."""


class WarmupStatus(Part):
    """Result of the warm-up of a revision."""

    requests: int = 0
    """Number of requests sent."""
    failures: int = 0
    """Number of requests that failed or had an unexpected answer."""
    p50: str = ""
    """Percentile 50 of the latency, such as 4.1ms."""
    p99: str = ""
    """Percentile 99 of the latency, such as 9.8ms."""
    requests_per_second: str = ""
    """Throughput in requests per second, with one concurrent request for each instance of the model."""
    stable: bool = False
    """True if the latency was stable before the timeout."""
    reason: Text = ""
    """WarmedUp, WarmupNotStable, or the reason of the failure, one CamelCase word."""
    message: Text = ""
    """Details of the reason, for users."""

    @classmethod
    def of(cls, report: WarmupReport) -> Self:
        """Return the status of a report. Fractions are text, as the API conventions require."""
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
    def has_failed(self) -> bool:
        """True if the revision must not get requests. An unstable latency is not a failure."""
        return WarmupReport(reason=self.reason).has_failed
