"""A change reaches users by steps, through a real gateway and under load; seven bad ones do not get far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE
from conch.api.names import ANNOTATION_REQUEST
from tests.support.doubling import (
    LIGHT,
    NUMBERS,
    apply_behind_gateway,
    build_predictor,
    build_request,
    count_factors,
    environment,
    host_of,
    near,
    wait_for_shares,
)
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.service import Service
from tests.support.traffic import Traffic
from tests.support.wait import until

PODS = 2
Canary = Callable[..., tuple[Service, str]]


@pytest.fixture
def canary(kube: Kube, namespace: str, gateway: Gateway) -> Canary:
    """Make a service behind the gateway that doubles numbers; return it and its host name."""

    def make(steps: list[dict[str, Any]], *, rollout: Any = None, **predictor: Any) -> tuple[Service, str]:
        fields = {"minReplicas": PODS, **predictor}
        service = apply_behind_gateway(kube, namespace, gateway, fields, rollout={"steps": steps, **(rollout or {})})
        service.until_ready()
        wait_for_shares(gateway, service, {2: 100})
        return service, host_of(service)

    return make


@pytest.mark.parametrize("gateway", ["envoy", "traefik"], indirect=True)
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_good_candidate_goes_by_its_shares_and_fails_no_request(
    canary: Canary, gateway: Gateway, figure: Callable[[str], None], count: int
) -> None:
    shares = (5, 25, 50)
    steps = [step for share in shares for step in ({"weight": share}, {"pause": "Manual"})]
    service, host = canary(steps)
    stable = service.status["stable"]
    with Traffic(gateway.address, gateway.address, build_request(2, 3), LIGHT, host) as traffic:
        service.patch({"predictor": build_predictor(3)})
        for number, share in enumerate(shares):
            rollout = paused(service, number)
            wait_for_shares(gateway, service, {3: share})
            factors = count_factors(gateway, service, count)
            figure(
                f"desired {share} %, observed {100 * factors[3] / count:.2f} % of {count} requests"
                f" ({factors[2] + factors[3]} right)"
            )
            assert factors[2] + factors[3] == count, factors
            assert near(factors, {3: share}), factors
            if number == 0:
                first = uids(service, rollout["revision"])
            assert len(service.ready_pods(stable)) == PODS
            request_action(service, f"promote {service.body['metadata']['generation']}/{rollout['step']}")
        status = service.settle()
    figure(str(traffic))
    assert status["stable"] == rollout["revision"]
    assert first < uids(service, rollout["revision"]) or first == uids(service, rollout["revision"])
    assert not traffic.failed, traffic
    service.until_event("Promoted", stable)
    service.patch({"traffic": None, "rollout": {"steps": None}})
    until(lambda: not service.children(HTTP_ROUTE), "the route is gone")


SUCCESS: dict[str, Any] = {"successRate": {"min": "95%"}, "interval": "5s"}
GATES: list[dict[str, Any]] = [SUCCESS, {"latency": {"max": "100ms"}, "interval": "5s"}]


def gated_by(*gates: dict[str, Any]) -> dict[str, Any]:
    """Return a rollout that these gates evaluate; on a busy machine a pod may take a minute to start."""
    return {"analysis": list(gates), "progressDeadline": "4m"}


STEPS: list[dict[str, Any]] = [{"weight": 20}, {"analysis": "1m"}, {"weight": 50}]
INPUT = {"name": "x", "datatype": "FP32", "shape": [len(NUMBERS)], "data": NUMBERS.tolist()}
RIGHT = {"name": "y", "data": [value * 2 for value in NUMBERS.tolist()]}


@dataclass(frozen=True)
class Bad:
    """A candidate that must not get far: its predictor, and the reason for its rollback."""

    predictor: dict[str, Any]
    reason: str
    words: str
    share: float = 0.0  # of the requests that may fail
    steps: tuple[dict[str, Any], ...] = tuple(STEPS)
    rollout: dict[str, Any] = field(default_factory=lambda: gated_by(*GATES))
    warmup: dict[str, Any] | None = None
    reached: int = 0  # percent of the requests that it had
    alone: bool = False  # it would be slow at a twentieth too, on a machine that does other work


BAD = {
    "errors": Bad(
        {"pod": environment(FACTOR=3, FAILS=0.5)},
        "AnalysisFailed",
        "Gate success-rate",
        share=0.2,
        rollout=gated_by(SUCCESS),
        reached=20,
    ),
    "slow": Bad({"pod": environment(FACTOR=3, SLEEPS=0.15)}, "AnalysisFailed", "Gate latency-mean", reached=20),
    # One pod answers 16 requests a second: enough for a twentieth of them, and not for half.
    "slow-at-half": Bad(
        {"pod": environment(FACTOR=3, SLEEPS=0.06)},
        "AnalysisFailed",
        "Gate latency-mean",
        steps=({"weight": 5}, {"analysis": "6s"}, {"weight": 50}, {"analysis": "1m"}),
        rollout={"analysis": [{"latency": {"max": "150ms"}, "minSamples": 5, "interval": "3s"}]},
        reached=50,
        alone=True,
    ),
    "dies-later": Bad(
        {"pod": environment(FACTOR=3, DIES=10)},
        "CrashLooping",
        "Container triton of double-",
        share=0.2,
        rollout=gated_by(SUCCESS),
        reached=20,
    ),
    "wrong": Bad(
        {"pod": environment(FACTOR=5)},
        "WarmupAnswersWrong",
        "y",
        warmup={"requests": [{"inputs": [INPUT], "expected": [RIGHT]}]},
    ),
    # Found before its first request, without an expected answer in the spec. Its requests are generated;
    # nodes that are shared are never quiet, and its speed is not under test.
    "wrong-but-fast": Bad(
        {"pod": environment(FACTOR=5)},
        "AnalysisFailed",
        "Gate parity: Agreement 0% over 20 replayed requests is below the minimum",
        rollout=gated_by({"parity": {}}, *GATES),
        warmup={"stable": {"percentile": 50, "within": "100%"}, "timeout": "20s"},
    ),
    "never-loads": Bad(
        {"model": {**build_predictor(2)["model"], "storageUri": "s3://models/nothing-here"}},
        "Empty",
        "s3://models/nothing-here",
        rollout={**gated_by(*GATES), "progressDeadline": "1m"},
    ),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.alone] if bad.alone else []) for kind, bad in BAD.items()]
)
def test_a_bad_candidate_is_rolled_back_for_its_own_reason(
    canary: Canary, gateway: Gateway, figure: Callable[[str], None], kind: str
) -> None:
    bad = BAD[kind]
    service, host = canary(list(bad.steps), rollout=bad.rollout, **({"warmup": bad.warmup} if bad.warmup else {}))
    stable = service.status["stable"]
    lowest, reached = PODS, 0
    with Traffic(gateway.address, gateway.address, build_request(2, 3), LIGHT, host) as traffic:
        service.patch({"predictor": bad.predictor})

        def over() -> bool:
            nonlocal lowest, reached
            lowest = min(lowest, len(service.ready_pods(stable)))
            found: dict[str, Any] = service.status.get("rollout") or {}
            reached = max(reached, found.get("weight", 0))
            return found.get("phase") == "Failed"

        until(over, "the candidate is given up", 300, seen=lambda: service.status.get("rollout"))
        rollout = service.status["rollout"]
        until(lambda: len(service.children(DEPLOYMENT)) == 1, "the candidate is gone")
    figure(f"{rollout['message']}\n{traffic}")
    assert rollout["reason"] == bad.reason
    assert bad.words in rollout["message"]
    assert reached == bad.reached
    assert lowest == PODS, "the stable revision keeps its capacity"
    spread = 3 * math.sqrt(bad.share * (1 - bad.share) * traffic.sent)
    assert traffic.failed <= bad.share * traffic.sent + spread, traffic
    assert routed(service) == {stable: 100}
    service.until_event("RolledBack", rollout["revision"])
    assert service.condition("Serving")["status"] == "True"
    assert service.condition("Ready")["status"] == "False"


def paused(service: Service, number: int) -> dict[str, Any]:
    """Wait for the pause behind a share; return the rollout's status."""

    def look() -> dict[str, Any] | None:
        rollout: dict[str, Any] = service.status.get("rollout") or {}
        return rollout if rollout.get("step") == 2 * number + 1 and rollout["phase"] == "Paused" else None

    return until(look, f"the pause behind share {number}", seen=lambda: service.status.get("rollout"))


def request_action(service: Service, request: str) -> None:
    """Annotate the service with a request to its rollout, as a user does."""
    annotation = f"{ANNOTATION_REQUEST}={request}"
    service.kube.run("annotate", "--overwrite", "isvc", service.name, f"--namespace={service.namespace}", annotation)


def uids(service: Service, revision: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in service.ready_pods(revision)}


def routed(service: Service) -> dict[str, int]:
    """Return the weights of the HTTPRoute, by Service."""
    [route] = service.children(HTTP_ROUTE)
    return {ref["name"]: ref["weight"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
