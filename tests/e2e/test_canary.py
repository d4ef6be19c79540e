"""A change reaches users by steps, through a real gateway and under load; five bad ones do not get far."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE
from conch.api.names import ANNOTATION_REQUEST
from tests.support.doubling import LIGHT, NUMBERS, behind, double, follow, host_of, near, seen, times
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
        said = {"minReplicas": PODS, **predictor}
        service = behind(kube, namespace, gateway, said, rollout={"steps": steps, **(rollout or {})})
        service.until_ready(120)
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
    with Traffic(gateway.address, gateway.address, times(2, 3), LIGHT, host) as traffic:
        service.patch({"predictor": double(3)})
        for number, share in enumerate(shares):
            rollout = paused(service, number)
            follow(gateway, service, {3: share})
            told = seen(gateway, service, count)
            figure(
                f"asked {share} %, got {100 * told[3] / count:.2f} % of {count} requests ({told[2] + told[3]} right)"
            )
            assert told[2] + told[3] == count, told
            assert near(told, {3: share}), told
            if number == 0:
                first = uids(service, rollout["revision"])
            assert len(service.ready_pods(stable)) == PODS
            ask(service, f"promote {service.body['metadata']['generation']}/{rollout['step']}")
        status = service.settle(120)
    figure(str(traffic))
    assert status["stable"] == rollout["revision"]
    assert first < uids(service, rollout["revision"]) or first == uids(service, rollout["revision"])
    assert not traffic.failed, traffic
    service.until_event("Promoted", stable)
    service.patch({"traffic": None, "rollout": {"steps": None}})
    until(lambda: not service.children(HTTP_ROUTE), "the route is gone", 20)


BAD = {
    "errors": (
        {"pod": {"env": [{"name": "FACTOR", "value": "3"}, {"name": "FAILS", "value": "0.5"}]}},
        "AnalysisFailed",
        "Gate success-rate",
    ),
    "slow": (
        {"pod": {"env": [{"name": "FACTOR", "value": "3"}, {"name": "SLEEPS", "value": "0.15"}]}},
        "AnalysisFailed",
        "Gate latency-mean",
    ),
    "wrong": (
        {"pod": {"env": [{"name": "FACTOR", "value": "5"}]}},
        "WarmupAnswersWrong",
        "y",
    ),
    "wrong-but-fast": (
        {"pod": {"env": [{"name": "FACTOR", "value": "5"}]}},
        "AnalysisFailed",
        "Gate parity: 0% of 20 replayed requests agree",
    ),
    "never-loads": (
        {"model": {**double(2)["model"], "storageUri": "s3://models/nothing-here"}},
        "Empty",
        "s3://models/nothing-here",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_candidate_is_rolled_back_for_its_own_reason(
    canary: Canary, gateway: Gateway, figure: Callable[[str], None], kind: str
) -> None:
    changed, reason, words = BAD[kind]
    rollout: dict[str, Any] = {
        "analysis": [
            {"successRate": {"min": "95%"}, "interval": "5s"},
            {"latency": {"max": "100ms"}, "interval": "5s"},
        ],
        "progressDeadline": "30s",
    }
    if kind == "wrong-but-fast":  # found before its first request, without an answer that anybody has written down
        rollout = {"analysis": [{"parity": {}}, *rollout["analysis"]], "progressDeadline": "2m"}
    right = {"name": "y", "data": [value * 2 for value in NUMBERS.tolist()]}
    inputs = {"name": "x", "datatype": "FP32", "shape": [len(NUMBERS)], "data": NUMBERS.tolist()}
    warmups: dict[str, dict[str, Any]] = {
        "wrong": {"warmup": {"requests": [{"inputs": [inputs], "expected": [right]}]}},
        # Made requests; nodes that are shared are never quiet, and how fast it is is not the question.
        "wrong-but-fast": {"warmup": {"stable": {"percentile": 50, "within": "100%"}, "timeout": "20s"}},
    }
    steps = [{"weight": 20}, {"analysis": "1m"}, {"weight": 50}]
    service, host = canary(steps, rollout=rollout, **warmups.get(kind, {}))
    stable = service.status["stable"]
    lowest = PODS
    with Traffic(gateway.address, gateway.address, times(2, 3), LIGHT, host) as traffic:
        service.patch({"predictor": changed})

        def over() -> bool:
            nonlocal lowest
            lowest = min(lowest, len(service.ready_pods(stable)))
            found: dict[str, Any] = service.status.get("rollout") or {}
            return found.get("state") == "Failed"

        until(over, "the candidate is given up", 150, seen=lambda: service.status.get("rollout"))
        told = service.status["rollout"]
        until(lambda: len(service.children(DEPLOYMENT)) == 1, "the candidate is gone", 60)
    figure(f"{told['message']}\n{traffic}")
    assert told["reason"] == reason
    assert words in told["message"]
    assert lowest == PODS, "the stable revision keeps its capacity"
    share = 0.2 if kind == "errors" else 0.0
    assert traffic.failed <= share * traffic.sent + 3 * math.sqrt(share * (1 - share) * traffic.sent), traffic
    assert routed(service) == {stable: 100}
    service.until_event("RolledBack", told["revision"])
    assert service.condition("Serving")["status"] == "True"
    assert service.condition("Ready")["status"] == "False"


def paused(service: Service, number: int) -> dict[str, Any]:
    """Wait for the pause behind a share; return what the status tells of the rollout."""

    def look() -> dict[str, Any] | None:
        rollout: dict[str, Any] = service.status.get("rollout") or {}
        return rollout if rollout.get("step") == 2 * number + 1 and rollout["state"] == "Paused" else None

    return until(look, f"the pause behind share {number}", 90, seen=lambda: service.status.get("rollout"))


def ask(service: Service, request: str) -> None:
    """Ask something of the rollout, as a person does."""
    annotation = f"{ANNOTATION_REQUEST}={request}"
    service.kube.run("annotate", "--overwrite", "isvc", service.name, f"--namespace={service.namespace}", annotation)


def uids(service: Service, revision: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in service.ready_pods(revision)}


def routed(service: Service) -> dict[str, int]:
    """What the HTTPRoute says."""
    [route] = service.children(HTTP_ROUTE)
    return {ref["name"]: ref["weight"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
