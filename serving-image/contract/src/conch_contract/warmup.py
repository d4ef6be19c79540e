"""The warm-up: its settings in the manifest, and its report."""

from typing import Any, ClassVar, Final

from conch_contract._base import Count, Wire
from conch_contract.job_report import JobReport

WARMED_UP: Final = "WarmedUp"
NOT_STABLE: Final = "WarmupNotStable"


class WarmupRequest(Wire):
    """A request to `/v2/models/<model>/infer` (KServe's Open Inference Protocol v2).

    Attributes:
        name: Name of the request, for messages.
        body: The JSON body.
        expected: Output tensors of the expected answer, each with `name` and `data`, and `shape` where it matters;
            empty: any answer is right.
    """

    name: str = ""
    body: dict[str, Any]
    expected: tuple[dict[str, Any], ...] = ()


class Warmup(Wire):
    """Settings of a warm-up. Without requests, config_map and path, a request is made from the model's metadata.

    The warm-up sends rounds of requests until the latency of two rounds differs by at most `within`.

    Attributes:
        requests: The requests.
        config_map: Name of the ConfigMap that is mounted at WARMUP_DIR/<name>, with one request a key. Such a request
            may have `expected` beside its body.
        path: Folder in the model's storage, with one request a `.json` file, in the form of those in a ConfigMap.
        tolerance: Bound of a floating-point output: |output - expected| is at most tolerance * max(1, |expected|).
        percentile: Percentile of a round's latencies that is compared, 1 to 100.
        within: Largest difference of two rounds, as a fraction of the latency of the first one.
        timeout_seconds: Duration after which the warm-up ends in any case.
        round_size: Number of requests of a round.
    """

    requests: tuple[WarmupRequest, ...] = ()
    config_map: str = ""
    path: str = ""
    tolerance: float = 0.001
    percentile: int = 99
    within: float = 0.2
    timeout_seconds: float = 300.0
    round_size: int = 50


class WarmupReport(JobReport):
    """Result of a warm-up: in the agent's report of a pod, and as the termination message of the warm-up Job.

    Latencies and throughput are those of the last rounds, which were compared.

    Attributes:
        requests: Number of requests that were sent.
        failures: Number of requests that were refused, or that had a wrong answer or none.
        p50_milliseconds: Median latency.
        p99_milliseconds: 99th percentile of the latencies.
        requests_per_second: Throughput.
        seconds: Duration of the warm-up.
        stable: True if the latency became stable.
        reason: `WarmedUp`; `WarmupNotStable`, which is no failure: the requests were answered, but the latency did not
            become stable in time; or the reason of a failure: `WarmupFailed`, `WarmupAnswersWrong`, `WarmupMissing`,
            `WarmupTimedOut`, `WarmupUnreachable`.
        message: The sentence to the reason.
    """

    successes: ClassVar = frozenset({WARMED_UP, NOT_STABLE})
    retryable: ClassVar = frozenset(
        {"WarmupUnreachable", "WarmupTimedOut", "WarmupBroken", "Unreachable", "InternalError"}
    )

    requests: Count = 0
    failures: Count = 0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0
    requests_per_second: float = 0.0
    seconds: float = 0.0
    stable: bool = False
