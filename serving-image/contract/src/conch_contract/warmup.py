"""The warm-up: what a model is asked before users reach it, and what came of it. Both directions."""

from typing import Any, Final

from conch_contract._base import Count, Wire

WARMED_UP: Final = "WarmedUp"
NOT_STABLE: Final = "WarmupNotStable"
# Reasons of the Job that another try may cure: nobody answered, or the program itself came to grief.
_PASSING: Final = frozenset({"WarmupUnreachable", "WarmupTimedOut", "WarmupBroken", "Unreachable", "InternalError"})


class WarmupRequest(Wire):
    """One request, as its sender would post it to `/v2/models/<model>/infer` (KServe's Open Inference Protocol v2).

    `body` is the JSON body as it stands. `expected` holds output tensors, each with `name` and `data`, and where
    the shape matters `shape`, as an answer has them; without them any answer is right.
    """

    name: str = ""
    body: dict[str, Any]
    expected: tuple[dict[str, Any], ...] = ()


class Warmup(Wire):
    """How a model is warmed. Without requests, config_map and path a request is made from the model's metadata.

    `config_map` names the ConfigMap that is mounted at WARMUP_DIR/<its name>: one request a key. `path` is a folder
    inside the model's storage: one request a `.json` file. Such a request may hold `expected` beside its body.
    `tolerance` is how far a floating-point output may be from the expected one: |got - expected| is at most
    tolerance * max(1, |expected|). Rounds of `round_size` requests follow each other until the latency's
    `percentile` (1 to 100) of a round differs from the round before by at most `within` (a fraction of it), or
    until `timeout_seconds` are over.
    """

    requests: tuple[WarmupRequest, ...] = ()
    config_map: str = ""
    path: str = ""
    tolerance: float = 0.001
    percentile: int = 99
    within: float = 0.2
    timeout_seconds: float = 300.0
    round_size: int = 50


class WarmupReport(Wire):
    """What a warm-up saw: in the agent's report of a pod, and as the termination message of the warm-up Job.

    `requests` were sent, `failures` of them were refused, wrong or not answered. The latencies and the throughput
    are those of the last rounds, the ones that were judged. `reason` is one CamelCase word: `WarmedUp`,
    `WarmupNotStable` (answers came, but the latency did not settle in time; no failure), or why it failed:
    `WarmupFailed`, `WarmupAnswersWrong`, `WarmupMissing`, `WarmupTimedOut`, `WarmupUnreachable`.
    """

    requests: Count = 0
    failures: Count = 0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0
    requests_per_second: float = 0.0
    seconds: float = 0.0
    stable: bool = False
    reason: str = ""
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether users must not reach what was warmed. A latency that is not stable is no failure."""
        return self.reason not in {WARMED_UP, NOT_STABLE}

    @property
    def passing(self) -> bool:
        """Whether it failed in a way that the Job tries again (exit status 2): the Job then has the last word."""
        return self.reason in _PASSING
