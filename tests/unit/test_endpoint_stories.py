"""Stories of the root Service's EndpointSlices: a switch is over when they list the new pods and no others."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, ENDPOINT_SLICE, INFERENCE_SERVICE, POD, SERVICE, Ref
from conch.api.names import LABEL_SERVICE_NAME
from conch.decide import decide
from conch.decide.requeue import MIN_CHECK_SECONDS
from conch.observe.cache_fields import trim
from conch_contract import names
from tests.unit.simulation import KEY, Cluster, build_manifest, read_weights, start_revision
from tests.unit.test_keda_stories import put_new_pod, scale, start_scaled_to_zero
from tests.unit.test_progressive_stories import change, read_reason, start_behind_gateway
from tests.unit.test_rollout_stories import ROOT, find_selected_revision, start_service

SLICE = Ref(ENDPOINT_SLICE, f"{KEY.name}-slice")
PENDING = ("Unknown", "EndpointsPending")
SERVED = ("True", "Served")


def switch_revision(**predictor: Any) -> tuple[Cluster, str, str]:
    """A service whose root Service selects a new revision, while its EndpointSlices list the old one."""
    cluster = start_service(**predictor)
    old = find_selected_revision(cluster)
    new = change(cluster)
    cluster.unlisted = {KEY.name}
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    return cluster, old, new


def update_slices(cluster: Cluster) -> None:
    """Write the EndpointSlices of all Services."""
    cluster.unlisted = set()
    for ref, service in list(cluster.objects.items()):
        if ref.kind == SERVICE:
            cluster.list_pods(service)


def put_slice(cluster: Cluster, name: str, pods: list[str], **changes: Any) -> None:
    """Write another EndpointSlice of the root Service, with these pods ready."""
    before = cluster.objects.pop(SLICE)
    cluster.list_pods(cluster.objects[ROOT], pods)
    body = cluster.objects.pop(SLICE)
    cluster.objects[SLICE] = before
    cluster.put(before)
    body["metadata"] = {**body["metadata"], "name": name, "uid": name, **changes}
    cluster.put(body)


def test_ready_waits_for_the_endpoint_slices_and_the_old_pods_stay() -> None:
    cluster, old, new = switch_revision()
    assert cluster.condition("Ready") == PENDING
    assert cluster.condition("RolloutComplete") == ("False", "EndpointsPending")
    assert cluster.condition("Serving")[0] == "True"
    assert cluster.condition("Reconciling") == ("True", "Progressing")
    assert cluster.condition("Stalled") == ("", "")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.message == (
        f"Requests to Service magika go to revision {new} when its EndpointSlices list the ready pods of that revision,"
        " and no others. kube-controller-manager updates them."
    )
    assert Ref(DEPLOYMENT, old) in cluster.objects
    assert decide(cluster.snapshot()).main.traffic.observed_weights == {old: 100}
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    assert cluster.condition("RolloutComplete") == ("True", "Complete")
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_the_wait_for_endpoint_slices_writes_no_status_and_no_event() -> None:
    """The status does not change between the write of the selector and the EndpointSlices."""
    quick, slow = start_service(), start_service()
    for cluster in (quick, slow):
        new = change(cluster)
        if cluster is slow:
            cluster.unlisted = {KEY.name}
        cluster.start_pods(new)
        cluster.reconcile()
        if cluster is slow:
            writes, story = cluster.status_writes, len(cluster.story)
            assert cluster.reconcile() == []
            assert (cluster.status_writes, len(cluster.story)) == (writes, story)
            update_slices(cluster)
        cluster.settle()
    assert slow.status_writes == quick.status_writes
    assert [event.reason for event in slow.story] == [event.reason for event in quick.story]


@pytest.mark.parametrize("old_pods", [True, False], ids=["the old pods", "no pods"])
def test_a_second_slice_counts_too(old_pods: bool) -> None:
    """A Service has another slice for the other address family, or for the pods after the hundredth."""
    cluster, old, new = switch_revision()
    put_slice(cluster, "magika-ipv6", [f"{old}-0"] if old_pods else [])
    cluster.list_pods(cluster.objects[ROOT])
    cluster.settle()
    assert cluster.condition("Ready") == (PENDING if old_pods else SERVED)
    assert (Ref(DEPLOYMENT, old) in cluster.objects) is old_pods
    if old_pods:
        put_slice(cluster, "magika-ipv6", [f"{new}-0"])
        cluster.settle()
        assert cluster.condition("Ready") == SERVED


@pytest.mark.parametrize(
    "changes",
    [
        {"ownerReferences": [{"kind": "Service", "name": KEY.name, "uid": "deleted", "controller": True}]},
        {"ownerReferences": []},
        {"labels": {names.LABEL_SERVICE: KEY.name, LABEL_SERVICE_NAME: "another"}},
    ],
    ids=["of a deleted Service", "without an owner", "of another Service"],
)
def test_slices_that_are_not_the_root_services_count_for_nothing(changes: dict[str, Any]) -> None:
    cluster, old, _ = switch_revision()
    put_slice(cluster, "other", [f"{old}-0"], **changes)
    cluster.list_pods(cluster.objects[ROOT])
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_pods_that_end_are_no_part_of_the_service_and_those_listed_as_ready_are() -> None:
    """With publishNotReadyAddresses a Service lists pods that end as ready, and requests go to them."""
    cluster, old, new = switch_revision()
    pod = copy.deepcopy(cluster.objects[Ref(POD, f"{old}-0")])
    pod["metadata"]["deletionTimestamp"] = "1970-01-12T13:46:40Z"
    cluster.put(pod)
    cluster.settle()
    assert cluster.condition("Ready") == PENDING, "it is still listed as ready"
    cluster.list_pods(cluster.objects[ROOT], [f"{old}-0", f"{new}-0"])
    cluster.settle()
    assert cluster.condition("Ready") == SERVED


def test_an_endpoint_without_a_condition_is_ready() -> None:
    points: list[dict[str, Any]] = [
        {"targetRef": {"uid": "a"}},
        {"targetRef": {"uid": "b"}, "conditions": {"ready": None}},
        {"targetRef": {"uid": "c"}, "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["198.18.0.1"]},
    ]
    head = {"apiVersion": ENDPOINT_SLICE.api_version, "kind": ENDPOINT_SLICE.name}
    noise = {"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2030-01-01T00:00:00Z"}}
    kept = trim({**head, "metadata": {"name": "a", **noise}, "addressType": "IPv4", "ports": [], "endpoints": points})
    meta = {"name": "a", "labels": {}, "annotations": {}, "ownerReferences": []}
    assert kept == {**head, "metadata": meta, "pods": ["a", "b"]}


def test_a_rollback_waits_for_no_endpoint_slice_and_keeps_listed_pods() -> None:
    """The EndpointSlices do not change again: the revision that they list keeps its pods."""
    cluster, old, new = switch_revision()
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    assert find_selected_revision(cluster) == old
    assert cluster.condition("Ready") == SERVED, "they list the old revision, as the spec requires"
    cluster.list_pods(cluster.objects[ROOT], [f"{new}-0"])
    cluster.settle()
    assert cluster.condition("Ready") == PENDING
    assert Ref(DEPLOYMENT, old) in cluster.objects
    for _ in range(3):
        cluster.now += 3600
        cluster.settle()
    assert cluster.condition("Ready") == PENDING
    assert cluster.condition("Serving")[0] == "True"
    assert Ref(DEPLOYMENT, old) in cluster.objects


def test_a_third_revision_does_not_wait_for_the_second() -> None:
    cluster, old, new = switch_revision()
    third = change(cluster, "s3://models/v3")
    cluster.start_pods(third)
    cluster.settle()
    assert find_selected_revision(cluster) == third
    assert Ref(DEPLOYMENT, old) in cluster.objects, "the EndpointSlices list it"
    update_slices(cluster)
    cluster.settle()
    deployments = {ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT}
    assert deployments == {third}
    assert new not in deployments


def test_a_share_of_all_requests_is_reached_when_the_endpoint_slices_show_it() -> None:
    steps = [{"weight": 100}, {"pause": "1m"}]
    cluster = start_service(rollout={"steps": steps, "progressDeadline": "15m"})
    old = find_selected_revision(cluster)
    new = change(cluster)
    cluster.unlisted = {KEY.name}
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.step, rollout.weight, rollout.observed_weight) == (0, 100, 0)
    assert (rollout.reason, rollout.message) == (
        "WaitsForTraffic",
        f"100 % of the requests are to go to {new}; the EndpointSlices of Service magika show another state.",
    )
    update_slices(cluster)
    cluster.settle()
    assert read_reason(cluster) == "Paused"
    cluster.now += 61
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_a_split_by_pods_is_reached_when_the_endpoint_slices_list_both() -> None:
    rollout = {"steps": [{"weight": 50}, {"pause": "1m"}]}
    cluster = Cluster(build_manifest(rollout=rollout, traffic={"split": "Replicas"}, minReplicas=2))
    cluster.reconcile()
    old = cluster.decision().wanted
    cluster.start_pods(old)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    new = change(cluster)
    cluster.unlisted = {KEY.name}
    cluster.start_pods(new)
    cluster.settle()
    assert names.LABEL_REVISION not in cluster.objects[ROOT]["spec"]["selector"]
    assert read_reason(cluster) == "WaitsForTraffic"
    update_slices(cluster)
    cluster.settle()
    assert read_reason(cluster) == "Paused"
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.observed_weight == 50
    cluster.unlisted = {KEY.name}
    cluster.now += 61
    cluster.settle()
    assert find_selected_revision(cluster) == new
    assert cluster.condition("Ready") == PENDING
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending")
    assert Ref(DEPLOYMENT, old) in cluster.objects
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_only_the_end_of_a_rollout_behind_a_gateway_waits_for_the_root_service() -> None:
    """Clients in the cluster reach the root Service without the gateway."""
    cluster, old = start_behind_gateway([{"weight": 50}, {"pause": "1m"}])
    new = change(cluster)
    cluster.unlisted = {KEY.name}
    start_revision(cluster, new)
    assert read_weights(cluster) == {old: 50, new: 50}
    assert read_reason(cluster) == "Paused"
    cluster.now += 61
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert find_selected_revision(cluster) == new
    assert cluster.condition("Ready") == PENDING
    assert cluster.condition("TrafficProgrammed") == ("True", "Programmed")
    assert Ref(DEPLOYMENT, old) in cluster.objects
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_the_service_reports_a_variant_whose_endpoint_slices_lag() -> None:
    cluster = start_service()
    cluster.edit_variants({"name": "int8", "predictor": {"model": {"storageUri": "s3://models/int8"}}})
    cluster.settle()
    cluster.unlisted = {"magika-int8"}
    cluster.start_pods(cluster.decision("int8").wanted)
    cluster.settle()
    assert cluster.condition("Ready") == PENDING
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.message.startswith("Variant int8: Requests to Service magika-int8 go to revision")
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED


def add_pods(cluster: Cluster, name: str, count: int) -> None:
    """Set the replicas as an autoscaler does, and start the pods."""
    body = cluster.objects[Ref(DEPLOYMENT, name)]
    body["spec"]["replicas"] = count
    cluster.put(body)


@pytest.mark.parametrize("late", [KEY.name, "the revision's"])
def test_a_service_that_only_scales_stays_ready(late: str) -> None:
    """In either order of its two Services."""
    cluster = start_service(minReplicas=2, maxReplicas=6)
    name = find_selected_revision(cluster)
    cluster.start_pods(name, count=2)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    truth = [cluster.condition("Ready")]

    def check_ready() -> None:
        cluster.settle()
        truth.append(cluster.condition("Ready"))

    def follow(change: Callable[[], None]) -> None:
        cluster.unlisted = {late if late == KEY.name else name}
        change()
        check_ready()
        update_slices(cluster)
        check_ready()

    add_pods(cluster, name, 5)
    for index in range(2, 5):
        follow(lambda index=index: cluster.put_pod(name, index, ready=False))  # type: ignore[misc]
        follow(lambda index=index: cluster.put_pod(name, index, ready=True))  # type: ignore[misc]
    add_pods(cluster, name, 2)
    for index in range(4, 1, -1):
        follow(lambda index=index: cluster.remove(Ref(POD, f"{name}-{index}")))  # type: ignore[misc]
    assert set(truth) == {SERVED}


def test_a_service_scales_to_zero_and_back_with_its_endpoint_slices() -> None:
    cluster = start_scaled_to_zero()
    name = find_selected_revision(cluster)
    assert cluster.condition("Ready") == ("True", "ScaledToZero")
    cluster.unlisted = {KEY.name}
    scale(cluster, name, 1)
    put_new_pod(cluster, name)
    cluster.settle()
    assert cluster.condition("Ready") == PENDING
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED
    body = cluster.objects[Ref(DEPLOYMENT, name)]
    body["spec"]["replicas"] = 0
    cluster.put(body)
    cluster.list_pods(cluster.objects[ROOT], [])
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "ScaledToZero"), "its pod has left this Service first"


def test_a_service_without_listed_endpoints_is_reported_and_keeps_its_pods() -> None:
    """The Service was deleted and created again, and the EndpointSlice controller does not run."""
    cluster = start_service()
    name = find_selected_revision(cluster)
    cluster.unlisted = {KEY.name}
    cluster.remove(ROOT)
    cluster.settle()
    assert find_selected_revision(cluster) == name
    assert cluster.condition("Ready") == PENDING
    assert Ref(DEPLOYMENT, name) in cluster.objects
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED


def test_ready_pods_without_listed_endpoints_are_reported() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.lists_pods = False
    cluster.start_pods(name)
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    assert cluster.decision().wait == MIN_CHECK_SECONDS, "no event comes"
    cluster.now += 61
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "EndpointsMissing")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert f"no EndpointSlice of Service {name} lists it" in ready.message
    cluster.lists_pods = True
    update_slices(cluster)
    cluster.settle()
    assert cluster.condition("Ready") == SERVED


def test_a_candidate_without_listed_pods_is_reported_and_rolled_back_at_the_deadline() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    cluster.lists_pods = False
    start_revision(cluster, new)
    cluster.now += 61
    cluster.settle()
    assert read_reason(cluster) == "EndpointsMissing"
    assert cluster.condition("Serving")[0] == "True"
    cluster.now += 901
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "EndpointsMissing")
    assert read_weights(cluster) == {stable: 100}


def test_a_rollout_that_took_longer_than_its_deadline_is_not_late_at_its_end() -> None:
    cluster, _ = start_behind_gateway([{"weight": 50}, {"pause": "2h"}])
    new = change(cluster)
    start_revision(cluster, new)
    cluster.now += 7201
    cluster.unlisted = {KEY.name}
    for _ in range(6):
        cluster.start_pods(new)
        cluster.accept_routes()
        cluster.reconcile()
        assert cluster.condition("Stalled") == ("", "")
    assert cluster.condition("Ready") == PENDING
    update_slices(cluster)
    cluster.reconcile()
    assert (cluster.condition("Ready"), cluster.condition("Stalled")) == (SERVED, ("", ""))


def test_endpoint_slices_of_a_deleted_service_have_no_owner() -> None:
    cluster = start_service()
    service = copy.deepcopy(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)])
    service["metadata"]["uid"] = "another"
    service.pop("status", None)
    cluster.put(service)
    assert cluster.snapshot().endpoints == {}, "the garbage collector deletes its Services next"


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [{"kind": "Job", "uid": "a-job", "controller": True}],
        [{"kind": "ReplicaSet", "uid": "another", "controller": True}],
        [{"kind": "ReplicaSet", "uid": "without the label", "controller": True}],
    ],
    ids=["without a controller", "of a Job", "of another Deployment", "of an unknown ReplicaSet"],
)
def test_a_pod_that_only_has_the_labels_of_a_revision_is_no_pod_of_it(owners: list[dict[str, Any]]) -> None:
    cluster = Cluster(build_manifest(minReplicas=1))
    cluster.settle()
    revision = cluster.decision().wanted
    deployment = {"kind": "Deployment", "uid": "of another", "controller": True}
    meta: dict[str, Any] = {"name": "another", "namespace": KEY.namespace, "uid": "another", "resourceVersion": "1"}
    meta |= {"labels": {names.LABEL_SERVICE: KEY.name}, "ownerReferences": [deployment]}
    cluster.store.put({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta})
    cluster.put_pod(revision, 0, ready=True)
    ref = Ref(POD, f"{revision}-0")
    genuine = cluster.objects[ref]["metadata"]["ownerReferences"]
    cluster.objects[ref]["metadata"]["ownerReferences"] = owners
    cluster.put(cluster.objects[ref])
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    cluster.objects[ref]["metadata"]["ownerReferences"] = genuine
    cluster.put(cluster.objects[ref])
    cluster.settle()
    assert cluster.condition("Ready")[0] != "Unknown"
