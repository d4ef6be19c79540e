"""A change in the pods that serve: by steps and with gates, where every GPU is taken, and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT
from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support.doubling import LIGHT, build_content, build_request
from tests.support.gpus import GPU, Pretended
from tests.support.kube import Kube
from tests.support.place import Place
from tests.support.service import Service
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until

PODS = 4
SWAPS, REQUESTS = 50, 100_000
MANY = Mix(grpc=8, fresh=2, kept=6, rate=25)
STEPS: list[dict[str, Any]] = [{"weight": 25}, {"analysis": "10s"}, {"weight": 50}, {"analysis": "10s"}]
SUCCESS: dict[str, Any] = {"successRate": {"min": "99%"}, "minSamples": 5, "interval": "3s"}
LATENCY: dict[str, Any] = {"latency": {"max": "250ms"}, "minSamples": 5, "interval": "3s"}
ROLLOUT: dict[str, Any] = {"strategy": "Swap", "steps": STEPS, "analysis": [SUCCESS], "progressDeadline": "2m"}

pytestmark = pytest.mark.xdist_group("nodes")  # GPUs are pretended on a node that no story may drain


@pytest.fixture
def service(kube: Kube, namespace: str, gpus: Pretended) -> Service:
    """A service on four pods with a GPU each, and there are no more."""
    gpus.are(PODS)
    on_gpus = {"resources": {"limits": {GPU: 1}}, "minReplicas": PODS}
    body = manifest("double", **build_content(2), **on_gpus)
    body["spec"]["rollout"] = ROLLOUT
    kube.apply(body, namespace)
    found = Service(kube, namespace, "double")
    found.until_ready()
    return found


def uids(service: Service) -> set[str]:
    return {pod["metadata"]["uid"] for pod in service.pods()}


def test_a_canary_needs_no_second_set_of_gpus(place: Place, service: Service, figure: Callable[[str], None]) -> None:
    first, pods = service.status["stable"], uids(service)
    assert len(pods) == PODS
    seen: set[int] = set()
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3), LIGHT) as traffic,
    ):
        service.patch({"predictor": build_content(3)})
        second = until(lambda: service.status.get("candidate"), "the change has a candidate")

        def has_taken_over() -> bool:
            status = service.status
            seen.add(status.get("weight") or 0)
            return bool(status.get("stable") == second)

        until(has_taken_over, "the candidate has taken over", seen=lambda: service.status.get("rollout"))
        service.settle()
        until(lambda: len(service.ready_pods(second)) == PODS, "all pods serve it")
        assert {25, 50} <= seen, "it went by its steps"
        slow = build_content(2, SLEEPS=0.4)
        service.patch({"predictor": slow, "rollout": {"analysis": [LATENCY]}})
        failed = service.until_condition("RolloutComplete", "False", "AnalysisFailed")
        assert "Gate latency-mean" in failed["message"]
        until(lambda: len(service.ready_pods(second)) == PODS, "all pods are back")
        assert service.status["stable"] == second
    figure(str(traffic))
    assert uids(service) == pods, "no pod started or ended"
    assert [each["metadata"]["name"] for each in service.children(DEPLOYMENT)] == [first]
    assert not traffic.failed, traffic


def test_the_only_pod_serves_while_it_loads_another_model(
    place: Place, kube: Kube, namespace: str, gpus: Pretended, figure: Callable[[str], None]
) -> None:
    gpus.are(1)
    body = manifest("double", **build_content(2), resources={"limits": {GPU: 1}}, minReplicas=1)
    steps: list[dict[str, Any]] = [{"weight": 50}, {"analysis": "5s"}]
    body["spec"]["rollout"] = {**ROLLOUT, "steps": steps}
    kube.apply(body, namespace)
    service = Service(kube, namespace, "double")
    service.until_ready()
    first, pods = service.status["stable"], uids(service)
    with (
        place.reach(namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3), LIGHT) as traffic,
    ):
        service.patch({"predictor": build_content(3)})
        until(lambda: _serves_other(service, first), "the change has taken over", seen=lambda: service.status)
        second = service.status["stable"]
        service.settle()
        service.patch({"predictor": build_content(2, SLEEPS=0.4), "rollout": {"analysis": [LATENCY]}})
        failed = service.until_condition("RolloutComplete", "False", "AnalysisFailed")
        assert "Gate latency-mean" in failed["message"]
        until(lambda: len(service.ready_pods(second)) == 1, "the pod is back")
        rollout = service.status["rollout"]
        assert (rollout["strategy"], service.status["stable"]) == ("SwapInPlace", second)
    figure(str(traffic))
    assert uids(service) == pods, "no pod started or ended"
    assert not traffic.failed, traffic


def _serves_other(service: Service, revision: str) -> bool:
    return service.status.get("stable") not in {None, revision}


@pytest.mark.long
@pytest.mark.timeout(3600, func_only=True)
def test_fifty_swaps_fail_no_request(place: Place, kube: Kube, namespace: str, figure: Callable[[str], None]) -> None:
    """Each change goes to all pods; what it costs is the p99 during the swaps over that without one."""
    body = manifest("double", **build_content(2), minReplicas=PODS)
    body["spec"]["rollout"] = {"strategy": "Swap"}
    kube.apply(body, namespace)
    service = Service(kube, namespace, "double")
    service.until_ready()
    pods, request = uids(service), build_request(2, 3)
    with place.reach(namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        with Traffic(http, grpc, request, MANY) as steady:
            until(lambda: steady.sent > REQUESTS // 10, "the load without a swap has lasted", 600)
        with Traffic(http, grpc, request, MANY) as traffic:
            for factor in itertools.islice(itertools.cycle((3, 2)), SWAPS):
                has_taken_over = partial(_serves_other, service, service.status["stable"])
                service.patch({"predictor": build_content(factor)})
                until(has_taken_over, "the candidate has taken over")
                service.settle()
            until(lambda: traffic.sent >= REQUESTS, "the load has lasted", 1800)
    figure(f"{SWAPS} swaps of {PODS} pods: {traffic}")
    figure(f"without a swap: {steady}")
    assert uids(service) == pods, "no pod started or ended"
    assert not traffic.failed, traffic
