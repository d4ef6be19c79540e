"""Stories of one service in the pure packages: the serving revision, the writes, and the status."""

import copy
from typing import Any

import pytest

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INFERENCE_SERVICE,
    SERVICE,
    Ref,
)
from conch.api.names import ANNOTATION_MODEL, ANNOTATION_STABLE
from conch.decide import build_report_requests, build_unreadable_status
from conch.desire import PodDefaults
from conch.observe import Unreadable, observe
from conch.plan import Apply, Delete, Release
from conch_contract import AgentReport, ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest, build_report

ROOT = Ref(SERVICE, KEY.name)


def find_selected_revision(cluster: Cluster) -> str:
    """The revision that the root Service selects."""
    revision: str = cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION]
    return revision


def start_service(**fields: Any) -> Cluster:
    """Start a service; `fields`: the arguments of `build_manifest`."""
    cluster = Cluster(build_manifest(**fields))
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    return cluster


def test_a_new_service_gets_its_children_in_order_and_a_status_at_once() -> None:
    cluster = Cluster(build_manifest())
    written = [action.ref for action in cluster.reconcile()]
    name = cluster.decision().wanted
    assert written == [
        Ref(CONTROLLER_REVISION, name),
        Ref(CONFIG_MAP, name),
        Ref(SERVICE, name),
        Ref(DISRUPTION_BUDGET, name),
        Ref(DEPLOYMENT, name),
        ROOT,
    ]
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    assert cluster.status.observed_generation == 1
    assert cluster.status_writes == 1


def test_a_settled_service_costs_nothing_and_waits_for_nothing() -> None:
    cluster = start_service()
    assert cluster.reconcile() == []
    assert cluster.decision().wait is None
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.condition("Reconciling") == ("", "")
    assert cluster.condition("Stalled") == ("", "")


def test_a_service_that_starts_writes_each_event_once() -> None:
    cluster = start_service()
    assert [event.reason for event in cluster.story] == ["RevisionCreated", "Served"]


def test_another_operator_with_another_image_changes_no_pod() -> None:
    cluster = start_service()
    cluster.defaults = PodDefaults("conch/serving:2", max_model_bytes={"": 5, "demo": 7}, tmp_size_limit="1Gi")
    assert cluster.reconcile() == []


@pytest.mark.parametrize(
    ("sizes", "argument"), [({}, []), ({"": 5}, ["--max-bytes=5"]), ({"": 5, "demo": 7}, ["--max-bytes=7"])]
)
def test_the_installer_bounds_the_size_of_models_for_all_namespaces_or_for_one(
    sizes: dict[str, int], argument: list[str]
) -> None:
    cluster = Cluster(build_manifest(), PodDefaults("conch/serving:1", max_model_bytes=sizes))
    cluster.settle()
    [deployment] = [body for ref, body in cluster.objects.items() if ref.kind == DEPLOYMENT]
    agent = deployment["spec"]["template"]["spec"]["initContainers"][0]
    assert agent["command"] == ["conch-agent", *argument]


def test_the_installer_bounds_what_every_container_stores_in_tmp() -> None:
    cluster = Cluster(build_manifest(), PodDefaults("conch/serving:1", tmp_size_limit="10Gi"))
    cluster.settle()
    [deployment] = [body for ref, body in cluster.objects.items() if ref.kind == DEPLOYMENT]
    pod = deployment["spec"]["template"]["spec"]
    mounts = [mount for key in ("initContainers", "containers") for c in pod[key] for mount in c["volumeMounts"]]
    at_tmp = {mount["name"] for mount in mounts if mount["mountPath"] == "/tmp"}
    limits = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] in at_tmp]
    assert limits == [{"sizeLimit": "10Gi"}] * 2


def test_a_changed_model_comes_up_beside_the_old_one_and_then_takes_over() -> None:
    cluster = start_service()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/magika-v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert new != old
    assert find_selected_revision(cluster) == old
    assert (cluster.status.stable, cluster.status.candidate) == (old, new)
    assert cluster.condition("Serving")[0] == "True"
    assert cluster.condition("Ready") == ("Unknown", "Progressing")

    cluster.start_pods(new)
    switch = cluster.reconcile()
    pinned = [Ref(CONTROLLER_REVISION, new), Ref(CONFIG_MAP, new)]
    assert [action.ref for action in switch] == [*pinned, ROOT]
    assert find_selected_revision(cluster) == new
    assert Ref(DEPLOYMENT, old) in cluster.objects, "the old pods stay until the switch is observed"
    retire = cluster.reconcile()
    assert all(isinstance(action, Delete) and action.ref.name == old for action in retire)
    cluster.settle()
    assert Ref(DEPLOYMENT, old) not in cluster.objects
    assert Ref(CONTROLLER_REVISION, old) in cluster.objects, "history is kept"
    assert cluster.condition("Ready") == ("True", "Served")
    assert "Promoted" in [event.reason for event in cluster.story]


def test_a_candidate_that_never_loads_does_not_affect_the_stable_revision_and_reports_its_reason() -> None:
    cluster = start_service()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/broken")
    cluster.reconcile()
    new = cluster.decision().wanted
    cluster.put_pod(new, 0, ready=False, report=build_report(ModelState.FAILED, "LoadFailed", "Triton rejects it"))
    cluster.settle()
    assert find_selected_revision(cluster) == old
    assert cluster.condition("Serving")[0] == "True"
    assert cluster.condition("Ready") == ("False", "LoadFailed")
    revision = cluster.status.revision(new)
    assert revision is not None
    assert revision.models[0].message == "Triton rejects it"
    cluster.now += 16 * 60
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "LoadFailed")
    assert cluster.condition("Reconciling") == ("", "")


def test_a_revert_during_a_rollout_drops_the_candidate_and_returns_the_number() -> None:
    cluster = start_service()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/broken")
    cluster.settle()
    new = cluster.decision().wanted
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    assert Ref(DEPLOYMENT, new) not in cluster.objects
    assert find_selected_revision(cluster) == old
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.objects[Ref(CONTROLLER_REVISION, old)]["revision"] == 3


def test_a_third_change_replaces_the_candidate_never_the_stable() -> None:
    cluster = start_service()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/a")
    cluster.settle()
    first = cluster.decision().wanted
    cluster.edit(uri="s3://models/b")
    cluster.settle()
    assert Ref(DEPLOYMENT, first) not in cluster.objects
    assert Ref(DEPLOYMENT, old) in cluster.objects
    assert find_selected_revision(cluster) == old


def test_the_history_limit_drops_the_oldest_records() -> None:
    cluster = start_service()
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    body["spec"]["rollout"]["historyLimit"] = 1
    cluster.put(body)
    for number in range(4):
        cluster.edit(uri=f"s3://models/v{number}")
        cluster.settle()
        cluster.start_pods(cluster.decision().wanted)
        cluster.settle()
    records = [ref for ref in cluster.objects if ref.kind == CONTROLLER_REVISION]
    assert len(records) == 2


def test_replicas_are_the_hpas_where_it_exists() -> None:
    cluster = start_service(minReplicas=1, maxReplicas=5)
    name = cluster.decision().wanted
    deployment = next(
        action.manifest
        for action in Cluster(build_manifest(minReplicas=1, maxReplicas=5)).reconcile()
        if isinstance(action, Apply) and action.ref.kind == DEPLOYMENT
    )
    assert "replicas" not in deployment["spec"]
    assert cluster.objects[Ref(AUTOSCALER, name)]["spec"]["minReplicas"] == 1


def test_turning_autoscaling_on_hands_the_replicas_over_before_letting_go() -> None:
    cluster = start_service(minReplicas=3)
    cluster.edit(maxReplicas=5)
    actions = cluster.reconcile()
    name = cluster.decision().wanted
    assert isinstance(actions[0], Release)
    assert actions[0].manifest["spec"] == {"replicas": 3}
    assert cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"] == 3
    cluster.settle()
    cluster.edit(maxReplicas=None)
    cluster.settle()
    assert Ref(AUTOSCALER, name) not in cluster.objects
    assert cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"] == 3


def test_a_candidate_must_carry_what_the_stable_one_carries() -> None:
    cluster = start_service(minReplicas=1, maxReplicas=8)
    old = find_selected_revision(cluster)
    cluster.objects[Ref(DEPLOYMENT, old)]["spec"]["replicas"] = 4
    cluster.put(cluster.objects[Ref(DEPLOYMENT, old)])
    cluster.start_pods(old)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert cluster.objects[Ref(AUTOSCALER, new)]["spec"]["minReplicas"] == 4
    cluster.start_pods(new, count=3)
    cluster.settle()
    assert find_selected_revision(cluster) == old
    cluster.start_pods(new, count=4)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    assert cluster.objects[Ref(AUTOSCALER, new)]["spec"]["minReplicas"] == 1, "minReplicas is released afterwards"


def test_an_edit_by_hand_is_undone_and_what_others_add_is_left() -> None:
    cluster = start_service(minReplicas=2)
    ref = Ref(DEPLOYMENT, cluster.decision().wanted)
    body = cluster.objects[ref]
    body["spec"]["replicas"] = 7
    body["metadata"]["annotations"]["team"] = "red"
    cluster.put(body)
    assert [action.ref for action in cluster.reconcile()] == [ref]
    assert cluster.objects[ref]["spec"]["replicas"] == 2


def test_a_child_deleted_by_hand_comes_back() -> None:
    cluster = start_service()
    budget = Ref(DISRUPTION_BUDGET, cluster.decision().wanted)
    cluster.remove(budget)
    assert [action.ref for action in cluster.reconcile()] == [budget]


def test_each_revision_of_a_rollout_has_a_disruption_budget_of_its_own_pods() -> None:
    cluster = start_service(minReplicas=4)
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    for revision in (old, new):
        spec = cluster.objects[Ref(DISRUPTION_BUDGET, revision)]["spec"]
        pods = cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]
        assert spec["selector"] == pods["selector"]
    cluster.start_pods(new, count=4)
    cluster.settle()
    assert [ref for ref in cluster.objects if ref.kind == DISRUPTION_BUDGET] == [Ref(DISRUPTION_BUDGET, new)]


def test_a_foreign_object_is_left_alone_and_named() -> None:
    cluster = Cluster(build_manifest())
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**_read_head(), "labels": {names.LABEL_SERVICE: KEY.name}},
            "spec": {"selector": {"app": "theirs"}},
        }
    )
    assert ROOT not in [action.ref for action in cluster.reconcile()]
    assert cluster.condition("Ready") == ("False", "NameTaken")
    assert cluster.condition("Stalled") == ("True", "NameTaken")
    assert cluster.objects[ROOT]["spec"]["selector"] == {"app": "theirs"}


def test_a_recreated_service_waits_for_the_old_children_to_go() -> None:
    cluster = start_service()
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    cluster.remove(Ref(INFERENCE_SERVICE, KEY.name))
    body["metadata"]["uid"] = "another-uid"
    body.pop("status")
    cluster.put(body)
    assert cluster.reconcile() == [], "objects that the garbage collector deletes next still have all names"
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    # EndpointSlices go with their Service.
    for ref in [ref for ref in cluster.objects if ref.kind.name not in {"InferenceService", "Pod", "EndpointSlice"}]:
        cluster.remove(ref)
    assert len(cluster.reconcile()) == 6


def test_lost_pods_are_reported_as_such_and_not_as_a_late_rollout() -> None:
    cluster = start_service()
    name = find_selected_revision(cluster)
    cluster.now += 86_400
    cluster.kill_pods(name)
    cluster.settle()
    assert cluster.condition("Serving") == ("False", "NoReadyPods")
    assert cluster.condition("RolloutComplete")[0] == "True"
    assert cluster.condition("Stalled") == ("", "")


def test_conditions_keep_their_time_while_their_value_stays() -> None:
    cluster = start_service()
    before = cluster.status.condition("Serving")
    cluster.now += 500
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    after = cluster.status.condition("Serving")
    assert before is not None
    assert after is not None
    assert after.last_transition_time == before.last_transition_time
    assert after.observed_generation == 2


def _read_head() -> dict[str, str]:
    return {"name": KEY.name, "namespace": KEY.namespace}


def test_a_spec_that_the_operator_cannot_read_is_reported_and_the_serving_objects_are_left_alone() -> None:
    cluster = start_service()
    before = cluster.status
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    body["spec"]["predictor"]["model"]["modelFormat"]["name"] = "hologram"
    body["metadata"]["generation"] += 1
    cluster.put(body)
    snapshot = observe(cluster.store, KEY, cluster.now)
    assert isinstance(snapshot, Unreadable)
    status = build_unreadable_status(snapshot, cluster.now)
    ready, serving = status.condition("Ready"), status.condition("Serving")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "SpecUnreadable")
    assert "spec.predictor.model.modelFormat.name is 'hologram'" in ready.message
    assert serving == before.condition("Serving")
    assert status.revisions == before.revisions


def test_reports_of_pods_are_read_until_the_status_has_the_digest_and_then_no_more() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True))
    cluster.reconcile()
    assert [each.pod.name for each in build_report_requests(cluster.snapshot())] == [f"{name}-0"]
    cluster.reports.clear()
    cluster.now += 120
    assert build_report_requests(cluster.snapshot()) == (), "a missing report is final in the end"
    cluster.put_pod(name, 0, ready=True)
    cluster.settle()
    assert build_report_requests(cluster.snapshot()) == ()
    cluster.put_pod(name, 1, ready=False)
    assert [each.pod.name for each in build_report_requests(cluster.snapshot())] == [f"{name}-1"]


def test_reports_are_read_the_more_rarely_the_longer_they_are_awaited() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    cluster.put_pod(cluster.decision().wanted, 0, ready=False)

    def find_periods() -> tuple[float, float | None]:
        (request,) = build_report_requests(cluster.snapshot())
        return request.period, cluster.decision().wait

    periods = []
    for seconds in (5, 20, 75, 500):
        cluster.now += seconds
        periods.append(find_periods())
    assert periods == [(1, 10), (2.5, 10), (8, 10), (8, 30)]


def test_a_stable_revision_without_its_record_serves_until_it_is_replaced() -> None:
    cluster = start_service()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    cluster.remove(Ref(CONTROLLER_REVISION, old))
    cluster.settle()
    assert Ref(DEPLOYMENT, old) in cluster.objects
    new = cluster.decision().wanted
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    assert Ref(DEPLOYMENT, old) not in cluster.objects


def test_pods_have_the_fields_of_the_predictors_pod() -> None:
    pod = {
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"operator": "Exists"}],
        "serviceAccountName": "models",
        "priorityClassName": "high",
        "labels": {"team": "red", names.LABEL_SERVICE: "not-mine"},
        "annotations": {"note": "x"},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    service = build_manifest(uri="file:///data/model.onnx", pod=pod, resources={"limits": {"cpu": "2"}})
    service["spec"]["predictor"]["model"].pop("storage")
    cluster = Cluster(service)
    cluster.reconcile()
    template = cluster.objects[Ref(DEPLOYMENT, cluster.decision().wanted)]["spec"]["template"]
    spec = template["spec"]
    for field in ("nodeSelector", "tolerations", "serviceAccountName", "priorityClassName"):
        assert spec[field] == pod[field]
    assert template["metadata"]["labels"]["team"] == "red"
    assert template["metadata"]["labels"][names.LABEL_SERVICE] == KEY.name, "a user cannot override Conch's labels"
    assert template["metadata"]["annotations"] == {"note": "x", ANNOTATION_MODEL: "magika"}
    for container in (*spec["containers"], *spec["initContainers"]):
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "2"}}


def test_a_pod_with_changed_content_is_reported_while_the_others_serve() -> None:
    cluster = start_service(minReplicas=1, maxReplicas=4)
    name = find_selected_revision(cluster)
    refused = build_report(ModelState.FAILED, "ContentChanged", "s3://models/magika has changed")
    cluster.put_pod(name, 1, ready=False, report=refused)
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "ContentChanged")
    assert cluster.condition("Stalled") == ("True", "ContentChanged")
    assert cluster.condition("Serving")[0] == "True"
    assert "ContentChanged" in [event.reason for event in cluster.story]
    cluster.put_pod(name, 1, ready=True)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


@pytest.mark.parametrize("other", ["the candidate", "one of the history"])
def test_an_edited_stable_annotation_is_ignored(other: str) -> None:
    """The annotation names the stable revision, so the candidate would become stable without its steps."""
    cluster = start_service(rollout={"steps": [{"pause": "Manual"}], "progressDeadline": "15m"})
    first = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    second = cluster.decision().wanted
    cluster.start_pods(second)
    cluster.request("promote 2")
    cluster.settle()
    assert find_selected_revision(cluster) == second
    cluster.edit(uri="s3://models/v3")
    cluster.settle()
    third = cluster.decision().wanted
    cluster.start_pods(third)
    cluster.settle()
    root = copy.deepcopy(cluster.objects[ROOT])
    root["metadata"]["annotations"][ANNOTATION_STABLE] = third if other == "the candidate" else first
    cluster.put(root)
    cluster.settle()
    assert cluster.objects[ROOT]["metadata"]["annotations"][ANNOTATION_STABLE] == second
    assert find_selected_revision(cluster) == second
    assert (cluster.status.stable, cluster.status.candidate) == (second, third)
    rollout = cluster.status.rollout
    assert rollout is not None
    assert rollout.reason == "WaitsForPromotion"


def test_a_status_that_was_not_written_does_not_undo_a_switch_nor_refuse_its_request() -> None:
    cluster = start_service(rollout={"steps": [{"pause": "Manual"}], "progressDeadline": "15m"})
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    cluster.start_pods(new)
    cluster.settle()
    cluster.request("promote 2")
    before = copy.deepcopy(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["status"])
    cluster.reconcile()
    assert find_selected_revision(cluster) == new
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    cluster.put({**body, "status": before})
    cluster.settle()
    assert find_selected_revision(cluster) == cluster.status.stable == new
    assert cluster.condition("Ready") == ("True", "Served")
    request = cluster.status.request
    assert request is not None
    assert (request.text, request.state) == ("promote 2", "Done")
    cluster.request("promote 2 again")
    cluster.settle()
    assert cluster.status.request is not None
    assert cluster.status.request.state == "Refused", "no rollout is left to promote"
