"""Nodes are drained and nodes are lost: pods stand apart, go one at a time, and come up elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from conch.api.kinds import DEPLOYMENT, DISRUPTION_BUDGET, LEASE, POD
from conch_contract import names
from tests.support import gateways
from tests.support.doubling import (
    LIGHT,
    SHORT,
    apply_behind_gateway,
    build_content,
    build_predictor,
    build_request,
    host_of,
    wait_for_shares,
)
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.nodes import clear, cut_power, drain, is_well
from tests.support.numbers import Numbers
from tests.support.patient import SECONDS, Patient
from tests.support.place import OPERATOR, SYSTEM, Place
from tests.support.service import Service, is_ready
from tests.support.traffic import Traffic
from tests.support.wait import until

QUIET_SECONDS = 10


@pytest.mark.xdist_group("nodes")  # one is cordoned
def test_pods_spread_and_a_drain_takes_one_at_a_time(
    place: Place, kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    service = apply_behind_gateway(kube, namespace, gateway, {"minReplicas": 2, **SHORT})
    revision = service.until_ready()["stable"]
    assert sorted(by_node(service).values()) == [1, 1]
    service.patch({"predictor": {"minReplicas": 4}})
    until(lambda: len(service.ready_pods()) == 4, "four pods are ready")
    service.until_ready()
    assert sorted(by_node(service).values()) == [2, 2]
    wait_for_shares(gateway, service, {2: 100})
    node = max(by_node(service))
    with (
        Numbers(kube, namespace, revision, ".status.readyReplicas") as ready,
        place.reach(namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2), LIGHT) as direct,
        Traffic(gateway.address, gateway.address, build_request(2), LIGHT, host_of(service)) as through,
    ):
        with drain(kube, service, node) as took:
            until(lambda: len(service.ready_pods()) == 4, "four pods are ready again")
            assert node not in by_node(service)
            until(lambda: len(all_pods(service)) == 4, "the pods that went are gone")
        lasted = time.monotonic()
        until(lambda: time.monotonic() - lasted > 5, "the load has lasted")
    figure(f"two of four pods left their node in {took:.0f} s; ready pods seen: {sorted(set(ready.seen))}")
    figure(f"straight to the Service: {direct}")
    figure(f"through the gateway: {through}")
    assert min(ready.seen) >= 3, ready.seen
    assert not through.failed, through
    assert not direct.tallies["grpc"].failures, direct
    assert not direct.tallies["fresh"].failures, direct


@pytest.mark.xdist_group("nodes")  # one is cordoned
def test_the_only_pod_of_a_service_can_be_drained(
    place: Place, kube: Kube, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    service = serve("single", **build_predictor(2), **SHORT)
    service.until_ready()
    [node] = by_node(service)
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2), LIGHT) as traffic,
        drain(kube, service, node) as took,
    ):
        until(service.ready_pods, "another pod is ready")
        service.until_ready()
        assert node not in by_node(service)
        until(lambda: len(all_pods(service)) == 1, "the pod that went is gone")
    figure(f"the only pod left its node in {took:.0f} s\n{traffic}")


@pytest.mark.alone
@pytest.mark.long  # minutes: a lost node reports nothing, and everything waits for times to run out
def test_a_node_is_lost_and_comes_back(
    place: Place, kube: Kube, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    assert place.local is not None
    # The machine reaches Services through the first node, and the store is there. Gateways are moved there in peace:
    # an Envoy that starts together with its controller may wait for it in vain.
    stays, goes = (node.name for node in place.local.plan.nodes)
    clear(kube, goes, gateways.NAMESPACE)
    service = serve("double", **build_predictor(2), minReplicas=2)
    service.until_ready()
    assert sorted(by_node(service)) == [stays, goes]
    lead_from(kube, goes)
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Patient(http, grpc) as clients,
    ):
        records = [record for kind in ("http", "grpc") for record in clients.records[kind]]
        until(lambda: all(record.quiet(3) for record in records), "every client is answered")
        began = time.monotonic()
        with cut_power(place, goes):
            until(lambda: leads_on(kube) == stays, "the operator's other replica leads")
            figure(f"the operator on the other node led {time.monotonic() - began:.0f} s after the loss")
            repaired(service)
            until(lambda: not is_well(kube, goes), "the node is NotReady")
            figure(f"the node was NotReady {time.monotonic() - began:.0f} s after the loss")
            until(
                lambda: all(record.quiet(QUIET_SECONDS) for record in records),
                "no attempt of an HTTP client, or a gRPC client that pings, has failed for a while",
                seen=lambda: clients.summary(began),
            )
            until(lambda: len(service.ready_pods()) == 2, "the lost pod is replaced")
            figure(f"the lost pod was replaced {time.monotonic() - began:.0f} s after the loss")
            assert set(by_node(service)) == {stays}
            service.until_ready()
        until(lambda: len(all_pods(service)) == 2, "the node that is back has let the lost pod go")
    figure(f"clients that wait {SECONDS:.0f} s for an answer, and retry:\n{clients.summary(began)}")


@pytest.mark.alone
@pytest.mark.long  # minutes, as above
def test_a_node_is_lost_during_a_swap(
    place: Place, kube: Kube, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    assert place.local is not None
    stays, goes = (node.name for node in place.local.plan.nodes)
    clear(kube, goes, gateways.NAMESPACE)
    service = serve("double", **build_content(2), minReplicas=4)
    service.patch({"rollout": {"strategy": "Swap"}})
    first = service.until_ready()["stable"]
    assert by_node(service) == {stays: 2, goes: 2}
    lead_from(kube, goes)

    def changes_there() -> bool:
        pods = (pod for pod in service.pods() if pod["spec"].get("nodeName") == goes)
        return any(names.LABEL_REVISION not in pod["metadata"]["labels"] for pod in pods)

    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Patient(http, grpc) as clients,
    ):
        records = [record for kind in ("http", "grpc") for record in clients.records[kind]]
        until(lambda: all(record.quiet(3) for record in records), "every client is answered")
        service.patch({"predictor": build_content(3, LOADS=6)})
        until(changes_there, "a pod of the node changes", seen=lambda: service.status.get("rollout"))
        began = time.monotonic()
        with cut_power(place, goes):
            until(lambda: leads_on(kube) == stays, "the operator's other replica leads")
            until(
                lambda: service.status.get("stable") not in {None, first},
                "the candidate has taken over",
                600,
                seen=lambda: service.status.get("rollout"),
            )
            second = service.status["stable"]
            figure(f"the candidate took over {time.monotonic() - began:.0f} s after the loss")
            until(
                lambda: all(record.quiet(QUIET_SECONDS) for record in records),
                "no attempt of an HTTP client, or a gRPC client that pings, has failed for a while",
                seen=lambda: clients.summary(began),
            )
            until(
                lambda: len(service.ready_pods(second)) == 4, "all pods serve it, and those that were lost are replaced"
            )
            figure(f"four pods served it {time.monotonic() - began:.0f} s after the loss")
            assert set(by_node(service)) == {stays}
            service.until_ready()
        until(lambda: len(all_pods(service)) == 4, "the node that is back has let the lost pods go")
    figure(f"clients that wait {SECONDS:.0f} s for an answer, and retry:\n{clients.summary(began)}")
    assert [each["metadata"]["name"] for each in service.children(DEPLOYMENT)] == [first]


def by_node(service: Service) -> Counter[str]:
    """How many of its pods that are not going each node has."""
    return Counter(pod["spec"].get("nodeName", "") for pod in service.pods())


def all_pods(service: Service) -> list[object]:
    """Its pods, going ones included."""
    return list(service.children(POD))


def repaired(service: Service) -> None:
    """Delete a child, and wait until the operator has made it again."""
    [budget] = service.children(DISRUPTION_BUDGET)
    service.kube.delete(DISRUPTION_BUDGET, service.namespace, budget["metadata"]["name"])
    until(
        lambda: any(b["metadata"]["uid"] != budget["metadata"]["uid"] for b in service.children(DISRUPTION_BUDGET)),
        "the operator repairs what is deleted",
    )


def leads_on(kube: Kube) -> str:
    """The node on which the operator's leader runs; empty when no pod leads."""
    holder = ((kube.get(LEASE, SYSTEM, OPERATOR) or {}).get("spec") or {}).get("holderIdentity")
    pod = kube.get(POD, SYSTEM, holder) if holder else None
    return str(pod["spec"].get("nodeName", "")) if pod and "deletionTimestamp" not in pod["metadata"] else ""


def lead_from(kube: Kube, node: str) -> None:
    """Let the operator's leader be on a node: one that leads elsewhere is deleted, once another could follow."""

    def look() -> bool:
        found = leads_on(kube)
        pods = kube.list(POD, SYSTEM, "app.kubernetes.io/instance=conch,app.kubernetes.io/name=conch")
        if len(pods) != 2 or not all(map(is_ready, pods)):
            return False
        apart = len({pod["spec"]["nodeName"] for pod in pods}) == 2
        leader = str((kube.get(LEASE, SYSTEM, OPERATOR) or {})["spec"]["holderIdentity"])
        if found == node and apart:
            return True
        if found:  # the leader, or who stands by beside it, comes up where the other is not
            names_of = [pod["metadata"]["name"] for pod in pods]
            kube.delete(POD, SYSTEM, leader if apart else next(name for name in names_of if name != leader))
        return False

    until(look, f"the operator leads from {node}")
