"""Swaps behind a gateway, and what happens meanwhile: they go on, the right model answers, and no request fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conch.api.kinds import DEPLOYMENT, LEASE, POD
from conch_contract import names
from tests.support.doubling import LIGHT, apply_behind_gateway, build_content, build_request, host_of, wait_for_shares
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.place import OPERATOR, SYSTEM
from tests.support.service import Service
from tests.support.traffic import Traffic
from tests.support.wait import until

PODS = 3
LOADS = 6  # seconds that a load takes, in which something happens


@pytest.fixture(scope="module")
def service(kube: Kube, shared_namespace: str, gateway: Gateway) -> Service:
    """A service behind a gateway, whose pods change one after another."""
    predictor = {**build_content(2, LOADS=0), "pod": {}, "minReplicas": PODS}
    found = apply_behind_gateway(kube, shared_namespace, gateway, predictor, rollout={"strategy": "Swap"})
    found.until_ready()
    return found


def end_agent(service: Service, pod: Object) -> None:
    service.end_container(pod["metadata"]["name"], names.AGENT_CONTAINER)


def end_triton(service: Service, pod: Object) -> None:
    service.end_container(pod["metadata"]["name"], names.TRITON_CONTAINER)


def delete_pod(service: Service, pod: Object) -> None:
    service.kube.delete(POD, service.namespace, pod["metadata"]["name"])


def end_operator(service: Service, _: Object) -> None:
    leader = (service.kube.get(LEASE, SYSTEM, OPERATOR) or {})["spec"]["holderIdentity"]
    service.kube.delete(POD, SYSTEM, leader)


def change_again(service: Service, _: Object) -> None:
    service.patch({"predictor": build_content(3, LOADS=0)})


@pytest.mark.parametrize(
    "interrupt",
    [
        end_triton,
        end_operator,
        pytest.param(end_agent, marks=pytest.mark.long),
        pytest.param(delete_pod, marks=pytest.mark.long),
        pytest.param(change_again, marks=pytest.mark.long),
    ],
)
def test_a_swap_goes_on_after_what_happens_meanwhile(
    service: Service,
    gateway: Gateway,
    figure: Callable[[str], None],
    interrupt: Callable[[Service, Object], None],
) -> None:
    [workload] = service.children(DEPLOYMENT)
    service.patch({"predictor": build_content(2, LOADS=0)})
    stable = service.settle()["stable"]
    until(lambda: len(service.ready_pods(stable)) == PODS, "all pods serve it")
    wait_for_shares(gateway, service, {2: 100})
    with Traffic(gateway.address, gateway.address, build_request(2, 3), LIGHT, host_of(service)) as traffic:
        service.patch({"predictor": build_content(3, LOADS=LOADS)})

        def find_changing_pod() -> Object | None:
            return next((pod for pod in service.pods() if names.LABEL_REVISION not in pod["metadata"]["labels"]), None)

        pod = until(find_changing_pod, "a pod changes", seen=lambda: service.status.get("rollout"))
        interrupt(service, pod)
        until(lambda: service.status.get("stable") not in {None, stable}, "the candidate has taken over")
        last = service.settle()["stable"]
        until(lambda: len(service.ready_pods(last)) == PODS, "all pods serve it")
        wait_for_shares(gateway, service, {3: 100})
    figure(str(traffic))
    assert [each["metadata"]["name"] for each in service.children(DEPLOYMENT)] == [workload["metadata"]["name"]]
    assert not traffic.failed, traffic
