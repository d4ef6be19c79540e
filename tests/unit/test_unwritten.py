"""Writes that fail: the writes that wait for them, and the conditions."""

from dataclasses import replace
from typing import Any

import pytest

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    SERVICE,
    Ref,
    ServiceKey,
    ref_of,
)
from conch.attempts import Attempts
from conch.decide import build_status, decide
from conch.desire import desire
from conch.plan import LASTING, Apply, ApplyRejected, find_unwritten, plan
from conch.plan.actions import list_references
from conch.reconcile import describe_error
from conch.write.errors import CallError
from tests.unit.simulation import KEY, Cluster, build_manifest, start_revision

VARIANT = {"name": "beta", "weight": 10}
TRAFFIC = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}


def start_service(**predictor: Any) -> Cluster:
    cluster = Cluster(build_manifest(**predictor))
    cluster.reconcile()
    start_without_gateway(cluster)
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster


def start_without_gateway(cluster: Cluster) -> None:
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()


def build_failed_conditions(cluster: Cluster, attempts: int, *, final: bool = False) -> dict[str, tuple[str, str]]:
    """Return the conditions after `attempts` failed writes of the Deployment."""
    snapshot = cluster.snapshot()
    rejection = ApplyRejected(Ref(DEPLOYMENT, decide(snapshot).main.wanted), "InternalError", "no way", final=final)
    found = find_unwritten(snapshot.service, [rejection], {rejection.ref: attempts})
    status = build_status(snapshot, decide(snapshot), found)
    return {one.type: (one.status, one.reason) for one in status.conditions}


def test_an_error_that_passes_changes_nothing_of_a_generation_that_was_applied() -> None:
    cluster = start_service()
    for attempts in range(1, LASTING):
        assert build_failed_conditions(cluster, attempts)["Ready"] == ("True", "Served")
    lasting = build_failed_conditions(cluster, LASTING)
    assert lasting["Ready"] == ("False", "InternalError")
    assert lasting["Reconciling"][0] == "True", "the error may be transient"
    assert "Stalled" not in lasting
    assert build_failed_conditions(cluster, 1, final=True)["Stalled"] == ("True", "InternalError")


def test_a_generation_that_was_not_applied_is_never_ready() -> None:
    cluster = start_service()
    cluster.edit(minReplicas=1, maxReplicas=2)  # the same revision
    for attempts in range(1, LASTING):
        assert build_failed_conditions(cluster, attempts)["Ready"][0] == "Unknown"
    assert build_failed_conditions(cluster, LASTING)["Ready"] == ("False", "InternalError")


def test_a_failed_write_is_reported_of_its_variant_and_a_lasting_failure_comes_first() -> None:
    service = build_manifest(traffic=TRAFFIC)
    service["spec"]["variants"] = [VARIANT, {"name": "beta-two", "weight": 10}]
    snapshot = Cluster(service).snapshot()

    def variants(*rejections: ApplyRejected) -> dict[str, str]:
        return {name: why.reason for name, why in find_unwritten(snapshot.service, rejections, {}).items()}

    beta = ApplyRejected(Ref(SERVICE, "magika-beta"), "NameTaken", "")
    assert variants(beta) == {"beta": "NameTaken"}
    assert variants(ApplyRejected(Ref(SERVICE, "magika-beta-two"), "NameTaken", "")) == {"beta-two": "NameTaken"}
    assert variants(ApplyRejected(Ref(DEPLOYMENT, "magika-bcdfghjklm"), "Invalid", "")) == {"": "Invalid"}
    assert variants(ApplyRejected(Ref(SERVICE, "magika-gone"), "Invalid", "")) == {"": "Invalid"}
    assert variants(ApplyRejected(Ref(HTTP_ROUTE, "magika"), "Invalid", "")).keys() == {"", "beta", "beta-two"}
    passing = replace(beta, ref=Ref(DEPLOYMENT, "magika-beta-bcdfghjklm"), reason="Timeout", final=False)
    assert variants(passing, beta) == variants(beta, passing) == {"beta": "NameTaken"}


def test_a_taken_name_is_reported_with_the_number_of_the_others_of_its_variant() -> None:
    service = build_manifest(traffic=TRAFFIC)
    service["spec"]["variants"] = [VARIANT]
    snapshot = Cluster(service).snapshot()

    def list_messages(*rejections: ApplyRejected) -> dict[str, str]:
        return {name: why.message for name, why in find_unwritten(snapshot.service, rejections, {}).items()}

    first, second, beta, route = (
        ApplyRejected(ref, "NameTaken", f"{ref} exists.")
        for ref in (
            Ref(CONFIG_MAP, "magika-bcdfghjklm"),
            Ref(SERVICE, "magika"),
            Ref(SERVICE, "magika-beta"),
            Ref(HTTP_ROUTE, "magika"),
        )
    )
    refused = ApplyRejected(Ref(DEPLOYMENT, "magika-bcdfghjklm"), "Invalid", "The API server refused it.")
    assert list_messages(first) == {"": first.message}
    assert list_messages(first, second, refused) == {"": f"{first.message} Other taken names: 1."}
    assert list_messages(first, second, beta, route) == {
        "": f"{first.message} Other taken names: 2.",
        "beta": f"{beta.message} Other taken names: 1.",
    }
    assert list_messages(refused, first, second) == {"": refused.message}


def test_an_object_that_refers_to_a_foreign_object_is_not_written() -> None:
    cluster = Cluster(build_manifest(minReplicas=1, maxReplicas=3))
    snapshot = cluster.snapshot()
    decision = decide(snapshot)
    desired = desire(snapshot, decision, cluster.defaults)
    wanted = decision.main.wanted

    def list_written(kind: Any) -> set[Ref]:
        """Return the objects that are written although an object of the revision is foreign."""
        theirs = replace(snapshot, foreign_objects={Ref(kind, wanted): "Deployment/theirs"})
        steps, rejections = plan(theirs, decision, desired)
        assert [rejection.reason for rejection in rejections] == ["NameTaken"]
        return {action.ref for step in steps for action in step}

    everything = {ref_of(each) for each in desired}
    assert everything - list_written(SERVICE) == {Ref(SERVICE, wanted)}
    assert everything - list_written(DEPLOYMENT) == {Ref(DEPLOYMENT, wanted), Ref(AUTOSCALER, wanted)}
    waits = {Ref(kind, wanted) for kind in (CONFIG_MAP, DEPLOYMENT, AUTOSCALER)}
    assert everything - list_written(CONFIG_MAP) == waits
    assert everything - list_written(CONTROLLER_REVISION) == (waits - {Ref(CONFIG_MAP, wanted)}) | {
        Ref(CONTROLLER_REVISION, wanted)
    }


def test_every_write_comes_after_the_writes_that_it_needs() -> None:
    service = build_manifest(minReplicas=1, maxReplicas=3, traffic=TRAFFIC)
    cluster = Cluster(service)
    cluster.reconcile()
    start_revision(cluster, cluster.decision().wanted)
    cluster.edit(uri="s3://models/v2")
    snapshot = cluster.snapshot()
    steps, _ = plan(snapshot, decide(snapshot), desire(snapshot, decide(snapshot), cluster.defaults))
    done: set[Ref] = set()
    for step in steps:
        refs = {action.ref for action in step}
        for action in step:
            if isinstance(action, Apply):
                assert not (list_references(action.manifest) & refs), "two writes of a step do not depend on each other"
        done |= refs
    assert done


def test_floors_of_autoscaled_revisions_are_restored() -> None:
    cluster = Cluster(build_manifest(minReplicas=2, maxReplicas=4))
    cluster.reconcile()
    start_without_gateway(cluster)
    ref = Ref(DEPLOYMENT, cluster.decision().wanted)
    for replicas, restored in ((0, 2), (1, 1), (3, 3)):  # an autoscaler raises what is not 0 by itself
        body = cluster.objects[ref]
        body["spec"]["replicas"] = replicas
        cluster.put(body)
        cluster.settle()
        assert cluster.objects[ref]["spec"]["replicas"] == restored


@pytest.mark.parametrize(("annotations", "replicas"), [({}, 2), ({"autoscaling.keda.sh/paused-replicas": "0"}, 0)])
def test_keda_that_a_person_has_paused_is_left_alone(annotations: dict[str, str], replicas: int) -> None:
    cluster = Cluster(build_manifest(minReplicas=2, maxReplicas=4), metrics_api="keda", prometheus="http://prometheus")
    cluster.reconcile()
    start_without_gateway(cluster)
    [driven] = [ref for ref in cluster.objects if ref.kind.name == "ScaledObject"]
    body = cluster.objects[driven]
    body["metadata"]["annotations"] |= annotations
    cluster.put(body)
    deployment = cluster.objects[Ref(DEPLOYMENT, driven.name)]
    deployment["spec"]["replicas"] = 0
    cluster.put(deployment)
    cluster.settle()
    assert cluster.objects[Ref(DEPLOYMENT, driven.name)]["spec"]["replicas"] == replicas


def test_orphans_of_the_service_are_adopted() -> None:
    cluster = start_service(minReplicas=1, maxReplicas=3)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    start_without_gateway(cluster)
    before = {ref: body["metadata"]["uid"] for ref, body in cluster.objects.items()}
    for ref in before:
        body = cluster.objects[ref]
        # Of an EndpointSlice the Service is the owner, and stays so.
        if ref.kind.name not in {"EndpointSlice", "Pod"} and body["metadata"].pop("ownerReferences", None):
            cluster.put(body)
    cluster.settle()
    assert {ref: body["metadata"]["uid"] for ref, body in cluster.objects.items()} == before
    owned = [body for ref, body in cluster.objects.items() if ref.kind.name not in {"InferenceService", "Pod"}]
    assert all(b["metadata"].get("ownerReferences") for b in owned if b["kind"] != "EndpointSlice")
    assert cluster.condition("Ready") == ("True", "Served")


def test_an_object_with_labels_of_ours_that_conch_never_wrote_is_foreign() -> None:
    cluster = start_service()
    ref = Ref(SERVICE, KEY.name)
    body = cluster.objects[ref]
    del body["metadata"]["ownerReferences"], body["metadata"]["annotations"]
    cluster.put(body)
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "NameTaken")


def test_attempts_are_counted_in_a_row() -> None:
    attempts: Attempts[str] = Attempts()
    key, other = ServiceKey("a", "b"), ServiceKey("a", "c")
    assert attempts.count(key, ["x"]) == {"x": 1}
    assert attempts.count(key, ["x", "y"]) == {"x": 2, "y": 1}
    assert attempts.count(other, ["x"]) == {"x": 1}
    assert attempts.count(key, ["y"]) == {"y": 2}
    assert attempts.count(key, ["x"]) == {"x": 1}
    assert attempts.count(key, []) == {}


def test_a_call_that_raises_is_reported_with_the_message_of_the_api_server() -> None:
    reason, message = describe_error(CallError(500, "InternalError", "etcd leader changed"))
    assert reason == "InternalError"
    assert "etcd leader changed" in message
    assert describe_error(CallError(0, "", "x"))[0] == "CallFailed"
