"""Swap of a service with one pod: it goes on to serve the old model until it has loaded the new one."""

from typing import Any

import pytest

from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, POD, SERVICE, Ref
from conch.api.names import ANNOTATION_ASSIGNED, ANNOTATION_SERVES
from conch_contract import ModelManifest, ModelState, names
from tests.unit.simulation import KEY, Cluster, measure
from tests.unit.test_swap_stories import at, begin, change, load_all

TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}


def begin_with_one(rollout: dict[str, Any] | None = None, **fields: Any) -> tuple[Cluster, str]:
    return begin({"strategy": "Swap", **(rollout or {})}, minReplicas=1, **fields)


def get_pod(cluster: Cluster) -> dict[str, Any]:
    [pod] = [body for ref, body in cluster.objects.items() if ref.kind == POD]
    return pod


def listed_by(cluster: Cluster) -> set[str]:
    """Return the Services that list the pod as ready."""
    uid = get_pod(cluster)["metadata"]["uid"]
    return {service for service, uids in cluster.snapshot().endpoints.items() if uid in uids}


@pytest.mark.parametrize("traffic", [None, TRAFFIC], ids=["service", "gateway"])
def test_the_pod_serves_while_it_loads_the_other_model(traffic: dict[str, Any] | None) -> None:
    cluster, stable = begin_with_one(**({"traffic": traffic} if traffic else {}))
    uid = get_pod(cluster)["metadata"]["uid"]
    candidate = change(cluster)
    pod = get_pod(cluster)["metadata"]
    assert pod["annotations"] == pod["annotations"] | {ANNOTATION_ASSIGNED: candidate, ANNOTATION_SERVES: stable}
    assert pod["labels"][names.LABEL_REVISION] == stable
    assert listed_by(cluster) == {KEY.name, stable, candidate}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "SwapInPlace"
    assert cluster.status.ready == "1/1"
    assert cluster.condition("Serving") == ("True", "Answering")
    cluster.swap()
    for _ in range(4):
        cluster.reconcile()
        if traffic and Ref(SERVICE, candidate) in cluster.objects:
            cluster.accept_routes()
        assert {KEY.name, candidate} <= listed_by(cluster)
        assert cluster.condition("Serving") == ("True", "Answering")
    cluster.settle()
    assert cluster.status.stable == candidate
    assert cluster.condition("Ready") == ("True", "Served")
    assert get_pod(cluster)["metadata"]["uid"] == uid
    assert ANNOTATION_SERVES not in get_pod(cluster)["metadata"]["annotations"]
    assert [ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT] == [stable]


def test_only_the_manifest_of_a_pod_that_changes_in_place_has_it_ready_meanwhile() -> None:
    cluster, stable = begin_with_one()

    def read_manifests() -> dict[str, bool]:
        data = cluster.objects[Ref(CONFIG_MAP, stable)]["data"]
        manifests = map(ModelManifest.model_validate_json, data.values())
        return {manifest.revision: manifest.in_place for manifest in manifests}

    assert read_manifests() == {stable: False}
    candidate = change(cluster)
    assert read_manifests() == {stable: True, candidate: True}
    load_all(cluster)
    assert read_manifests() == {candidate: False}


def test_a_model_that_does_not_load_leaves_the_old_one_serving() -> None:
    cluster, stable = begin_with_one()
    change(cluster)
    cluster.swap(ModelState.FAILED, reason="LoadFailed", message="no such operator")
    cluster.settle()
    assert cluster.condition("Serving") == ("True", "Answering")
    assert stable in listed_by(cluster)
    cluster.now += 901
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "LoadFailed")
    load_all(cluster)
    assert cluster.served() == {stable: 1}
    assert cluster.condition("Serving") == ("True", "Answering")
    assert cluster.status.stable == stable


def test_an_analysis_follows_the_change_and_a_failure_goes_back_in_the_pod() -> None:
    gates = {"steps": [{"weight": 25}, {"analysis": "5m"}], "analysis": [{"successRate": {"min": "99%"}}]}
    cluster, stable = begin_with_one(gates)
    candidate = change(cluster)
    load_all(cluster, rounds=2)
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.weight, rollout.step, cluster.status.stable) == (100, 1, stable)
    assert [step.to_wire() for step in rollout.steps] == [{"weight": 100}, {"analysis": "5m"}, {"weight": 100}]
    measure(cluster, 60, requests=600, failures=300)
    assert cluster.condition("Stalled") == ("True", "AnalysisFailed")
    assert cluster.served() == {stable: 1}
    assert cluster.condition("Serving") == ("True", "Answering")
    assert {KEY.name, candidate} <= listed_by(cluster), "it serves the candidate until it has loaded the other"
    assert cluster.decision().wait is not None, "no event shows that it has loaded it"
    load_all(cluster)
    assert listed_by(cluster) == {KEY.name, stable}
    assert cluster.status.stable == stable


def test_a_second_change_in_the_middle_finds_the_pod_serving() -> None:
    cluster, stable = begin_with_one()
    change(cluster)
    third = change(cluster, model=at("third"))
    pod = get_pod(cluster)["metadata"]["annotations"]
    assert (pod[ANNOTATION_ASSIGNED], pod[ANNOTATION_SERVES]) == (third, stable)
    assert KEY.name in listed_by(cluster)
    load_all(cluster)
    assert cluster.status.stable == third


def test_a_change_of_the_pods_in_the_middle_keeps_the_pod_in_its_services() -> None:
    cluster, stable = begin_with_one()
    change(cluster)
    other = change(cluster, model=at("third"), resources={"limits": {"memory": "1Gi"}})
    assert KEY.name in listed_by(cluster)
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "Progressive"
    load_all(cluster)
    assert cluster.served() == {stable: 1}
    assert KEY.name in listed_by(cluster)
    cluster.start_pods(other)
    load_all(cluster)
    assert cluster.status.stable == other


def test_the_way_back_to_the_first_revision_needs_no_second_pod() -> None:
    cluster, stable = begin_with_one()
    change(cluster)
    load_all(cluster)
    cluster.edit(model=at("magika"))
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "SwapInPlace"
    assert cluster.objects[Ref(DEPLOYMENT, stable)]["spec"]["replicas"] == 1
    load_all(cluster)
    assert cluster.status.stable == stable
    assert listed_by(cluster) == {KEY.name, stable}


@pytest.mark.parametrize(
    "fields",
    [
        {"rollout": {"analysis": [{"parity": {"minAgreement": "99%"}}]}},
        {"model": None, "entry": "a", "models": [{"name": "a", **at("a")}, {"name": "b", **at("b")}]},
    ],
    ids=["parity", "several models"],
)
def test_what_needs_two_pods_is_refused_with_one(fields: dict[str, Any]) -> None:
    cluster, _ = begin_with_one(fields.pop("rollout", None), **fields)
    if "models" in fields:
        change(cluster, model=None, models=[{"name": "a", **at("other")}, {"name": "b", **at("b")}])
    else:
        change(cluster)
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "Progressive"
    assert "needs 2 pods" in cluster.status.rollout.swap_obstacle


@pytest.mark.parametrize("traffic", [None, TRAFFIC], ids=["service", "gateway"])
@pytest.mark.parametrize("has_loaded", [True, False])
@pytest.mark.parametrize(
    "edit",
    [
        {"model": at("magika")},
        {"model": at("other"), "resources": {"limits": {"memory": "1Gi"}}},
        {"model": at("third"), "resources": {"limits": {"memory": "1Gi"}}},
        {"model": None, "entry": "a", "models": [{"name": "a", **at("a")}, {"name": "b", **at("b")}]},
    ],
    ids=["back", "other pods", "another model on other pods", "several models"],
)
def test_the_pod_serves_whatever_follows_a_change_in_place(
    traffic: dict[str, Any] | None, has_loaded: bool, edit: dict[str, Any]
) -> None:
    pause = {"steps": [{"weight": 50}, {"pause": "Manual"}]}
    cluster, stable = begin_with_one(pause, **({"traffic": traffic} if traffic else {}))
    candidate = change(cluster)
    cluster.swap(ModelState.READY if has_loaded else ModelState.FAILED, reason="" if has_loaded else "LoadFailed")
    for _ in range(4):
        cluster.reconcile()
        if traffic:
            cluster.accept_routes()
    if has_loaded:
        assert cluster.status.rollout is not None
        assert (cluster.status.rollout.phase, cluster.status.rollout.weight) == ("Paused", 100)
    cluster.edit(**edit)
    for _ in range(3):
        cluster.reconcile()
        assert {KEY.name, candidate if has_loaded else stable} <= listed_by(cluster)
        data = cluster.objects[Ref(CONFIG_MAP, stable)]["data"]
        assert all(ModelManifest.model_validate_json(text).in_place for text in data.values())
        if traffic:
            cluster.accept_routes()
    load_all(cluster)
    assert cluster.served() == {stable: 1}
    assert stable in listed_by(cluster)
    assert ANNOTATION_SERVES not in get_pod(cluster)["metadata"]["annotations"]


def test_a_pause_before_the_load_holds_the_change() -> None:
    cluster, stable = begin_with_one()
    change(cluster)
    cluster.request(f"pause {cluster.status.observed_generation}")
    cluster.settle()
    load_all(cluster)
    assert cluster.served() == {stable: 1}
    assert cluster.condition("Serving") == ("True", "Answering")


def test_the_weight_follows_the_pod_although_a_second_one_has_no_node() -> None:
    cluster, _ = begin_with_one({"steps": [{"weight": 50}, {"pause": "Manual"}]})
    change(cluster, minReplicas=2)
    load_all(cluster)
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.weight) == ("Paused", 100)


def test_a_parity_gate_that_is_added_in_the_middle_holds_nothing() -> None:
    cluster, _ = begin_with_one()
    candidate = change(cluster)
    cluster.edit_rollout(analysis=[{"parity": {"minAgreement": "99%"}}])
    cluster.settle()
    load_all(cluster)
    assert cluster.status.stable == candidate


def test_a_pod_that_starts_after_a_change_in_place_takes_the_candidate_from_none() -> None:
    cluster, workload = begin_with_one()
    change(cluster)
    load_all(cluster)
    cluster.edit_rollout(strategy="Swap", steps=[{"weight": 50}, {"pause": "1h"}])
    candidate = change(cluster, model=at("third"))
    load_all(cluster)
    assert cluster.condition("RolloutComplete") == ("False", "Paused")
    assert cluster.served() == {candidate: 1}
    cluster.edit(minReplicas=3)
    cluster.settle()
    first = Ref(POD, f"{workload}-0")
    assigned = set()
    cluster.put_pod(workload, 1, ready=True)  # it serves the old model first
    for _ in range(6):
        cluster.reconcile()
        assigned.add(cluster.objects[first]["metadata"]["annotations"][ANNOTATION_ASSIGNED])
    assert assigned == {candidate}
