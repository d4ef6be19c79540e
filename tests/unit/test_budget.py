"""The GPU budget: which nodes take a pod, how many whole pods fit, and the sentence with the sum."""

from typing import Any

import pytest

from conch.api import Pod
from conch.decide.admission.budget import Budget, Need, budget
from conch.decide.admission.placement import is_eligible
from conch.observe.capacity import NO_OWNER, Allocation, Capacity, Node, Owner, Quota, Scope, Taint, requested_by_pod

GPU, MIG = "nvidia.com/gpu", "nvidia.com/mig-1g.5gb"
STABLE = Owner("demo", "magika-a")


def node(name: str, gpus: int, used: int = 0, owner: Owner = NO_OWNER, **more: Any) -> Node:
    return Node(name, allocatable={GPU: gpus}, allocated={owner: {GPU: used}} if used else {}, **more)


def build_need(pods: int, each: int = 1, **pod: Any) -> Need:
    return Need("magika-b", pods, {GPU: each}, Pod.model_validate(pod))


def require_nodes(*terms: dict[str, Any]) -> dict[str, Any]:
    """A pod with node selector terms, of which one has to match."""
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": wanted}}


def build_expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


A100 = {"gpu": "a100", "zone": "a", "size": "8"}
NO_GPU_PODS = Taint("dedicated", "training", "NoSchedule")


@pytest.mark.parametrize(
    ("pod", "taken"),
    [
        ({}, True),
        ({"nodeSelector": {"gpu": "a100"}}, True),
        ({"nodeSelector": {"gpu": "a100", "zone": "b"}}, False),
        ({"nodeSelector": {"rack": "1"}}, False),
        (require_nodes(build_expression("gpu", "In", "h100", "a100")), True),
        (require_nodes(build_expression("gpu", "In", "h100")), False),
        (require_nodes(build_expression("gpu", "In", "h100"), build_expression("zone", "Exists")), True),
        (require_nodes(build_expression("gpu", "NotIn", "h100")), True),
        (require_nodes(build_expression("rack", "NotIn", "1")), True),
        (require_nodes(build_expression("rack", "Exists")), False),
        (require_nodes(build_expression("rack", "DoesNotExist")), True),
        (require_nodes(build_expression("size", "Gt", "4")), True),
        (require_nodes(build_expression("size", "Lt", "8")), False),
        (require_nodes(build_expression("gpu", "Gt", "4")), False),
        (require_nodes({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), True),
        (require_nodes({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), False),
        (require_nodes({}), False),
        (require_nodes(), False),
        ({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}, True),
        ({"affinity": {"nodeAffinity": "nonsense"}}, True),
    ],
)
def test_a_node_is_drawn_by_its_labels(pod: dict[str, Any], *, taken: bool) -> None:
    assert is_eligible(node("n1", 1, labels=A100), Pod.model_validate(pod), [GPU]) is taken


@pytest.mark.parametrize(
    ("taint", "tolerations", "taken"),
    [
        (NO_GPU_PODS, [], False),
        (NO_GPU_PODS, [{"key": "dedicated", "value": "training"}], True),
        (NO_GPU_PODS, [{"key": "dedicated", "operator": "Equal", "value": "serving"}], False),
        (NO_GPU_PODS, [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}], True),
        (NO_GPU_PODS, [{"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}], False),
        (NO_GPU_PODS, [{"operator": "Exists"}], True),
        (NO_GPU_PODS, [{"key": "dedicated", "operator": "Lt", "value": "training"}], False),
        (NO_GPU_PODS, ["nonsense"], True),
        (Taint("dedicated", "", "NoExecute"), [], False),
        (Taint("dedicated", "", "PreferNoSchedule"), [], True),
        (Taint(GPU, "present", "NoSchedule"), [], True),
    ],
)
def test_a_taint_keeps_pods_without_a_toleration_away(taint: Taint, tolerations: list[Any], *, taken: bool) -> None:
    pod = Pod().model_copy(update={"tolerations": tuple(tolerations)})
    assert is_eligible(node("n1", 1, taints=(taint,)), pod, [GPU]) is taken


def test_a_node_that_is_not_open_takes_nothing() -> None:
    def read(spec: dict[str, Any], ready: str) -> Node:
        status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {GPU: "4", "cpu": "2"}}
        return Node.parse({"metadata": {"name": "n1"}, "spec": spec, "status": status})

    assert read({}, "True") == node("n1", 4)
    assert is_eligible(read({}, "True"), Pod(), [GPU])
    assert not is_eligible(read({"unschedulable": True}, "True"), Pod(), [GPU])
    assert not is_eligible(read({}, "Unknown"), Pod(), [GPU])


@pytest.mark.parametrize(
    ("wanted", "nodes", "fits", "count", "remedy"),
    [
        (build_need(1), [node("a", 4, 1)], 3, f"3 fit: 1 of 4 {GPU} on eligible nodes are allocated", ""),
        (
            build_need(2),
            [node("a", 1), node("b", 1, 1)],
            1,
            f"1 fits: 1 of 2 {GPU} on eligible nodes are allocated",
            "free 1",
        ),
        (build_need(1, 4), [node("a", 8, 6), node("b", 8, 5)], 0, f"11 of 16 {GPU}", f"free 4 {GPU} on one node"),
        (build_need(3, 2), [node("a", 2)], 1, f"0 of 2 {GPU}", f"free 2 {GPU} on one node for each of 2 pods"),
        (build_need(1), [node("a", 2, 3)], 0, f"0 fit: 3 of 2 {GPU} on eligible nodes are allocated", "free 1"),
        (build_need(1), [], 0, f"no node has {GPU}", "add such a node"),
        (build_need(1), [Node("a", allocatable={MIG: 7})], 0, f"no node has {GPU}", "add such a node"),
        (
            build_need(1),
            [node("a", 4, open=False)],
            0,
            f"none of the 1 nodes with {GPU} is eligible",
            "see that such a node",
        ),
    ],
)
def test_whole_pods_fit_on_nodes(wanted: Need, nodes: list[Node], fits: int, count: str, remedy: str) -> None:
    found = budget(wanted, Capacity(tuple(nodes)))
    assert found.fits == fits
    assert count in found.count
    assert found.remedy.startswith(remedy)
    assert bool(found.remedy) is bool(remedy)


def test_pods_of_two_resources_need_both_on_one_node() -> None:
    both = Need("magika-b", 2, {GPU: 1, "rdma/hca": 1}, Pod())
    nodes = (Node("a", allocatable={GPU: 8, "rdma/hca": 1}), Node("b", allocatable={GPU: 8}))
    found = budget(both, Capacity(nodes))
    assert (found.fits, found.remedy) == (1, f"free 1 {GPU} and 1 rdma/hca on one node")
    assert found.count == f"1 fits: 0 of 8 {GPU} and 0 of 1 rdma/hca on eligible nodes are allocated"


@pytest.mark.parametrize(
    ("quota", "fits"),
    [
        (Quota("q", {GPU: 4}, {GPU: 3}), 1),
        (Quota("q", {GPU: 4}, {GPU: 5}), 0),
        (Quota("q", {MIG: 0}, {}), 9),
        (Quota("q", {GPU: 0}, {}, (Scope("BestEffort"),)), 9),
        (Quota("q", {GPU: 0}, {}, (Scope("NotTerminating"),)), 0),
        (Quota("q", {GPU: 0}, {}, (Scope("PriorityClass", "In", ("high",)),)), 0),
        (Quota("q", {GPU: 0}, {}, (Scope("PriorityClass", "NotIn", ("high",)),)), 9),
        (Quota("q", {GPU: 0}, {}, (Scope("PriorityClass"),)), 0),
        (Quota("q", {GPU: 0}, {}, (Scope("PriorityClass", "DoesNotExist"),)), 9),
    ],
)
def test_the_tighter_of_nodes_and_quotas_limits_the_pods(quota: Quota, fits: int) -> None:
    found = budget(build_need(9, priorityClassName="high"), Capacity((node("a", 9),), (quota,)))
    assert found.fits == fits
    assert ("of ResourceQuota q are used" in found.count) is (fits < 9)


def test_reserved_gpus_are_free_only_for_the_owner_of_the_reservation() -> None:
    there = Capacity((node("a", 6, 1, STABLE),)).reserving({STABLE: {GPU: 3}, Owner("demo", "magika-c"): {GPU: 1}})
    assert there.reserved == {STABLE: {GPU: 2}, Owner("demo", "magika-c"): {GPU: 1}}
    found = budget(build_need(2), there)
    assert (found.fits, found.remedy) == (2, "")
    assert (
        found.count == f"2 fit: 1 of 6 {GPU} on eligible nodes are allocated, and 3 {GPU} reserved for pods that start"
    )
    assert budget(build_need(2), there, frozenset({STABLE})).fits == 5
    assert budget(build_need(1, 4), there).fits == 0, "a pod of four does not start on what three others leave"


def test_a_removed_owner_counts_neither_on_nodes_nor_in_a_quota() -> None:
    there = Capacity((node("a", 2, 2, STABLE),), (Quota("q", {GPU: 2}, {GPU: 2}),))
    assert budget(build_need(2), there).fits == 0
    assert budget(build_need(2), there, frozenset({STABLE})) == Budget(
        2, f"2 fit: 0 of 2 {GPU} on eligible nodes are allocated", ""
    )


def test_a_quota_is_read_as_the_api_server_writes_it() -> None:
    body = {
        "metadata": {"name": "gpus"},
        "spec": {
            "hard": {f"requests.{GPU}": "4", "requests.cpu": "8", "pods": "9"},
            "scopes": ["NotBestEffort"],
            "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]},
        },
        "status": {"used": {f"requests.{GPU}": "3"}},
    }
    scopes = (Scope("NotBestEffort"), Scope("PriorityClass", "In", ("a",)))
    assert Quota.parse(body) == Quota("gpus", {GPU: 4}, {GPU: 3}, scopes)
    assert Capacity.of([], [], [{"metadata": {"name": "cpu"}, "spec": {"hard": {"pods": "1"}}}]) == Capacity()


def pod(spec: dict[str, Any], phase: str = "Running", **labels: str) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "demo", "labels": labels}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def test_allocations_of_pods_are_summed_by_node_and_owner() -> None:
    spec_of_gpu_pod = {"containers": [{"resources": {"requests": {GPU: "1", "cpu": "1"}, "limits": {GPU: "1"}}}]}
    pods = [
        pod({**spec_of_gpu_pod, "nodeName": "n1"}, **{"conch.dev/revision": "magika-a"}),
        pod({**spec_of_gpu_pod, "nodeName": "n1"}, **{"conch.dev/revision": "magika-a"}),
        pod({**spec_of_gpu_pod, "nodeName": "n1"}),
        pod({**spec_of_gpu_pod, "nodeName": "gone"}),
        pod(spec_of_gpu_pod, "Pending"),
        pod({**spec_of_gpu_pod, "nodeName": "n1"}, "Succeeded"),
        pod({"containers": [{}], "nodeName": "n1"}),
    ]
    allocations = [allocation for each in pods if (allocation := Allocation.of(each)) is not None]
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {GPU: "8"}}
    [read] = Capacity.of([{"metadata": {"name": "n1"}, "status": status}], allocations, []).nodes
    assert read.allocated == {STABLE: {GPU: 2}, NO_OWNER: {GPU: 1}}
    assert (read.used(GPU), read.used(GPU, frozenset({STABLE}))) == (3, 1)


def test_a_sidecar_counts_with_the_containers_and_an_init_container_at_its_own_time() -> None:
    one = {"resources": {"limits": {GPU: 1}}}
    sidecar = {**one, "restartPolicy": "Always"}
    assert requested_by_pod({"initContainers": [one, sidecar], "containers": [one, one]}) == {GPU: 3}
    assert requested_by_pod(
        {"initContainers": [sidecar, {"resources": {"limits": {GPU: 4}}}], "containers": [one]}
    ) == {GPU: 5}
    assert requested_by_pod({"containers": [{"resources": {"limits": {"cpu": 1}}}]}) == {}
