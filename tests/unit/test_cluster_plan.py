"""The address plan: clusters never meet, and pods are distinct from everything else."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.errors import ClusterError
from tests.cluster.network import routes
from tests.cluster.plan import BLOCK, MAX_NODES, SERVICES_WITHOUT_NODES, SLOTS, Plan, free_slot

slots = st.integers(0, len(SLOTS) - 1)


@given(slots, slots)
def test_two_slots_share_no_address(one: int, other: int) -> None:
    a, b = Plan("a", one, MAX_NODES), Plan("b", other, MAX_NODES)
    assert a.network.subnet_of(BLOCK)
    assert a.network.overlaps(b.network) == (one == other)


@given(slots)
def test_parts_of_a_slot_lie_inside_and_do_not_overlap(slot: int) -> None:
    plan = Plan("a", slot, MAX_NODES)
    parts = [plan.link, plan.services, *(node.pods for node in plan.nodes)]
    assert all(part.subnet_of(plan.network) for part in parts)
    assert not any(one.overlaps(other) for one, other in combinations(parts, 2))


@given(slots)
def test_pods_are_in_the_pod_network_and_the_host_is_not(slot: int) -> None:
    plan = Plan("a", slot, MAX_NODES)
    assert all(node.pods.subnet_of(plan.pods) for node in plan.nodes)
    assert plan.host not in plan.pods
    assert plan.control not in plan.pods
    assert not any(node.address in plan.pods for node in plan.nodes)


def test_addresses_of_the_first_slot() -> None:
    plan = Plan("conch", 0, 2)
    assert str(plan.host) == "198.18.0.1"
    assert plan.api_url == "https://198.18.0.2:6443"
    assert [str(node.address) for node in plan.nodes] == ["198.18.0.11", "198.18.0.12"]
    assert [str(node.pods) for node in plan.nodes] == ["198.18.8.0/24", "198.18.9.0/24"]
    assert str(plan.dns_service) == "198.18.4.10"


def test_no_namespace_has_a_default_route_and_no_node_a_route_to_itself() -> None:
    plan = Plan("conch", 0, 2)
    first, second = plan.nodes
    assert routes(plan, first) == [(second.pods, second.address)]
    assert routes(plan) == [
        (first.pods, first.address),
        (second.pods, second.address),
        (plan.services, first.address),
    ]


def test_a_control_plane_alone_has_no_routes_and_addresses_for_ten_thousand_services() -> None:
    plan = Plan("api", 3, 0)
    assert routes(plan) == []
    assert plan.services.subnet_of(BLOCK)
    assert plan.services.num_addresses > 2 * 10_000  # two for each InferenceService


@given(slots)
def test_no_cluster_has_an_address_of_the_services_without_nodes(slot: int) -> None:
    assert not SLOTS[slot].overlaps(SERVICES_WITHOUT_NODES)


def test_interface_names_fit_the_kernel() -> None:
    plan = Plan("a" * 20, len(SLOTS) - 1, MAX_NODES)
    assert all(len(name) <= 15 for name in [plan.host_link, *(node.name for node in plan.nodes)])


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a" * 21, "a/b", "1a", "a-"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="expected 1 to 20"):
        Plan(name, 0, 1)


@pytest.mark.parametrize("nodes", [-1, MAX_NODES + 1])
def test_a_bad_number_of_nodes_is_refused(nodes: int) -> None:
    with pytest.raises(ClusterError, match="--nodes"):
        Plan("a", 0, nodes)


def test_slots_are_taken_from_the_lowest_until_none_is_left() -> None:
    assert free_slot([]) == 0
    assert free_slot([0, 1, 3]) == 2
    with pytest.raises(ClusterError, match="taken"):
        free_slot(range(len(SLOTS)))


def test_a_plan_survives_its_record() -> None:
    plan = Plan("conch", 7, 3, kwok=True)
    assert Plan(**plan.record()) == plan
