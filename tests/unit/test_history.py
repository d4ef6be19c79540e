"""The record of a revision: its author, its note, and what it served; and the cost of it."""

import json
from typing import Any

import pytest

from conch.api.child_kinds import CHILDREN
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, INFERENCE_SERVICE, Ref
from conch.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_CHANGE_CAUSE,
    ANNOTATION_CONTENTS,
)
from conch.observe.cache_fields import author_of, trim
from conch.plan import Apply
from conch_contract import AgentReport, ModelReport, ModelSource, ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest


def entry(manager: str, time: str, *path: str) -> dict[str, Any]:
    """One entry of managedFields that owns one field."""
    fields: dict[str, Any] = {}
    for part in reversed(path):
        fields = {f"f:{part}": fields}
    return {"manager": manager, "time": time, "operation": "Apply", "fieldsV1": fields}


MODEL = ("spec", "predictor", "model", "storageUri")
WRITERS = [
    entry("kubectl-edit", "2026-11-01T10:00:00Z", *MODEL),
    entry("argocd-controller", "2026-11-01T11:00:00Z", *MODEL),
    entry("kubectl-conch", "2026-11-01T12:00:00Z", "metadata", "annotations", "conch.dev/rollout"),
    entry("kubectl-scale", "2026-11-01T13:00:00Z", "spec", "rollout"),
    entry("conch", "2026-11-01T14:00:00Z", "status", "ready"),
]


def build_cluster(writers: list[dict[str, Any]], note: str = "") -> Cluster:
    """Return a cluster with a service that these writers have made."""
    body = build_manifest()
    body["metadata"]["managedFields"] = writers
    if note:
        body["metadata"]["annotations"] = {ANNOTATION_CHANGE_CAUSE: note}
    return Cluster(body)


def record(cluster: Cluster, revision: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.objects[Ref(CONTROLLER_REVISION, revision)]["metadata"]["annotations"]
    return found


def test_the_author_is_who_last_wrote_the_predictor() -> None:
    assert author_of({"metadata": {"managedFields": WRITERS}}) == "argocd-controller"
    assert author_of({"metadata": {}}) == ""


def test_the_author_of_a_variant_is_who_last_wrote_it_or_what_it_takes_from_the_predictor() -> None:
    body = build_manifest()
    body["spec"]["variants"] = [{"name": "int8"}, {"name": "beta"}]
    theirs = entry("kubectl-edit", "2026-11-01T12:00:00Z", "spec", "variants")
    theirs["fieldsV1"]["f:spec"]["f:variants"] = {'k:{"name":"int8"}': {"f:predictor": {}}, 'k:{"name":"beta"}': {}}
    body["metadata"]["managedFields"] = [*WRITERS, theirs]
    argo = "argocd-controller"
    assert trim(body)["metadata"]["authors"] == {"": argo, "int8": "kubectl-edit", "beta": argo}
    assert (author_of(body), author_of(body, "int8"), author_of(body, "beta")) == (argo, "kubectl-edit", "")
    cluster = Cluster(body)
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    authors = {name: record(cluster, cluster.decision(name).wanted)[ANNOTATION_AUTHOR] for name in ("", "int8", "beta")}
    assert authors == {"": argo, "int8": "kubectl-edit", "beta": argo}


def test_managed_fields_are_kept_as_one_word() -> None:
    body = build_manifest()
    body["metadata"]["managedFields"] = WRITERS
    kept = trim(body)["metadata"]
    assert "managedFields" not in kept
    assert kept["authors"] == {"": "argocd-controller"}
    body["metadata"]["managedFields"] = [{**WRITERS[1], "time": "2026-11-02T11:00:00Z"}]
    assert trim(body)["metadata"] == kept, "a newer time wakes no service"


def test_a_new_revision_carries_author_and_note_and_costs_no_more_writes_for_it() -> None:
    cluster = build_cluster(WRITERS, "a better model")
    actions = cluster.reconcile()
    name = cluster.decision().wanted
    annotations = record(cluster, name)
    assert (annotations[ANNOTATION_AUTHOR], annotations[ANNOTATION_CHANGE_CAUSE]) == (
        "argocd-controller",
        "a better model",
    )
    assert ANNOTATION_CONTENTS not in annotations
    children = [ref for ref in cluster.objects if ref.kind in CHILDREN]
    assert len([action for action in actions if isinstance(action, Apply)]) == len(children)
    assert cluster.settle() == 0, "nothing more before the pods are up"


def test_the_digest_follows_with_one_write_when_the_revision_serves() -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.start_pods(name)
    actions = cluster.reconcile()
    assert [action.ref for action in actions] == [Ref(CONTROLLER_REVISION, name), Ref(CONFIG_MAP, name)]
    pinned = json.loads(cluster.objects[Ref(CONFIG_MAP, name)]["data"][names.MANIFEST_FILE])
    assert pinned["models"][0]["digest"] == "sha256:1", "later pods serve that content, or none"
    assert read_contents(cluster, name)["magika"]["digest"] == "sha256:1"
    cluster.settle()
    cluster.reports.clear()
    cluster.kill_pods(name)
    cluster.settle()
    assert read_contents(cluster, name)["magika"]["digest"] == "sha256:1", "what was known is not forgotten"


VERSIONS = {"1/model.onnx": "3sL4", "config.pbtxt": "null"}


def build_served_report(versions: dict[str, str], digest: str = "sha256:1") -> AgentReport:
    """What the agent of a pod reports whose bucket has versioning."""
    model = ModelReport(name="magika", state=ModelState.READY, digest=digest, object_versions=versions)
    return AgentReport(ready=True, models=(model,))


def read_contents(cluster: Cluster, name: str) -> dict[str, Any]:
    """The contents in the annotation of a revision."""
    found: dict[str, Any] = json.loads(record(cluster, name)[ANNOTATION_CONTENTS])
    return found


def read_pins(cluster: Cluster, name: str) -> dict[str, Any]:
    """The model in the manifest of a revision's later pods."""
    manifest = json.loads(cluster.objects[Ref(CONFIG_MAP, name)]["data"][names.MANIFEST_FILE])
    found: dict[str, Any] = manifest["models"][0]
    return found


def test_the_object_versions_of_a_bucket_follow_with_the_digest_in_the_same_write() -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=build_served_report(VERSIONS))
    actions = cluster.reconcile()
    assert [action.ref for action in actions] == [Ref(CONTROLLER_REVISION, name), Ref(CONFIG_MAP, name)]
    assert read_contents(cluster, name)["magika"]["objectVersions"] == VERSIONS
    assert ModelSource.model_validate(read_pins(cluster, name)).object_versions == VERSIONS
    cluster.put_pod(name, 0, ready=True, report=build_served_report({}))  # an agent whose manifest has them
    assert cluster.settle() == 0
    cluster.put_pod(name, 1, ready=True, report=build_served_report({"1/model.onnx": "9xY2", "config.pbtxt": "null"}))
    cluster.settle()
    assert read_pins(cluster, name)["objectVersions"] == VERSIONS, "a pod that started at the same time may have others"
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    assert cluster.decision().wanted == name
    assert read_pins(cluster, name)["objectVersions"] == VERSIONS, "a revision that returns serves what it served"


def test_object_versions_of_a_digest_that_is_known_are_added() -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=build_served_report({}))
    cluster.settle()
    assert "objectVersions" not in read_pins(cluster, name)
    cluster.put_pod(name, 1, ready=True, report=build_served_report(VERSIONS, "sha256:2"))
    cluster.settle()
    assert "objectVersions" not in read_pins(cluster, name), "they are those of other content"
    cluster.put_pod(name, 2, ready=True, report=build_served_report(VERSIONS))
    cluster.settle()
    assert read_pins(cluster, name)["objectVersions"] == VERSIONS


@pytest.mark.parametrize(
    "versions",
    [{"a": "two words"}, {"a": ""}, {"a": "b", "c": "\x1b[31m"}, {f"{number:0300}": "x" * 32 for number in range(100)}],
)
def test_a_revision_with_no_or_too_many_object_versions_records_only_the_digest(versions: dict[str, str]) -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=build_served_report(versions))
    cluster.settle()
    assert read_contents(cluster, name) == {"magika": {"digest": "sha256:1"}}
    assert read_pins(cluster, name)["digest"] == "sha256:1"
    assert "objectVersions" not in read_pins(cluster, name)


def test_the_requests_that_the_first_ready_pod_was_warmed_with_are_recorded() -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    for index, digest in enumerate(("sha256:a", "sha256:b")):
        model = ModelReport(name="magika", state=ModelState.READY, digest="sha256:1", warmup_digest=digest)
        cluster.put_pod(name, index, ready=True, report=AgentReport(ready=True, models=(model,)))
        cluster.settle()
        assert read_contents(cluster, name)["magika"]["warmupDigest"] == "sha256:a"
        assert read_pins(cluster, name)["warmupDigest"] == "sha256:a", "later pods compare theirs with it"


def test_the_requests_of_each_of_several_models_are_recorded_beside_it() -> None:
    """The ConfigMaps of two models change independently of each other."""
    wake = {"configMapRef": {"name": "wake"}}
    models: list[dict[str, Any]] = [
        {"name": name, "modelFormat": {"name": "onnx"}, "storageUri": f"s3://models/{name}"} for name in ("a", "all")
    ]
    models[0]["warmup"] = wake
    cluster = Cluster(build_manifest(model=None, models=models, entry="all", warmup={"configMapRef": {"name": "own"}}))
    cluster.reconcile()
    name = cluster.decision().wanted
    for index, digest in enumerate(("sha256:a", "sha256:b")):
        reports = tuple(
            ModelReport(name=each, state=ModelState.READY, digest="sha256:1", warmup_digest=f"{digest}-{each}")
            for each in ("a", "all")
        )
        cluster.put_pod(name, index, ready=True, report=AgentReport(ready=True, models=reports))
        cluster.settle()
        contents = read_contents(cluster, name)
        assert {each: contents[each]["warmupDigest"] for each in contents} == {"a": "sha256:a-a", "all": "sha256:a-all"}


@pytest.mark.parametrize("broken", ["[" * 10_000, "{}", '{"magika":{"digest":1}}', '{"other":{"digest":"sha256:9"}}'])
def test_an_annotation_that_another_writer_broke_is_replaced_by_what_the_pods_serve(broken: str) -> None:
    cluster = build_cluster(WRITERS)
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.start_pods(name)
    cluster.settle()
    record(cluster, name)[ANNOTATION_CONTENTS] = broken
    cluster.put(cluster.objects[Ref(CONTROLLER_REVISION, name)])
    cluster.settle()
    assert read_pins(cluster, name)["digest"] == "sha256:1"
    assert read_contents(cluster, name) == {"magika": {"digest": "sha256:1"}}


def build_repository() -> Cluster:
    """A service of a repository whose entry is `all`."""
    model = {"modelFormat": {"name": "repository"}, "storageUri": "s3://models/repo"}
    return Cluster(build_manifest(model=model, entry="all", warmup={}))


def build_repository_report(**digests: str) -> AgentReport:
    """What the agent reports of a repository: a model of each name, with its digest."""
    models = (ModelReport(name=name, state=ModelState.READY, digest=digest) for name, digest in digests.items())
    return AgentReport(ready=True, models=tuple(models))


def test_later_pods_of_a_repository_serve_the_models_that_the_first_one_found_in_it() -> None:
    cluster = build_repository()
    cluster.reconcile()
    name = cluster.decision().wanted
    whole = read_pins(cluster, name)
    assert (whole["name"], whole["format"], whole["storageUri"]) == ("all", "repository", "s3://models/repo")
    first = build_repository_report(all="sha256:1", pre="sha256:2")
    cluster.put_pod(name, 0, ready=True, report=first)
    cluster.settle()
    manifest = json.loads(cluster.objects[Ref(CONFIG_MAP, name)]["data"][names.MANIFEST_FILE])
    models = [(each["name"], each["format"], each["storageUri"], each["digest"]) for each in manifest["models"]]
    assert models == [
        ("all", "triton", "s3://models/repo/all", "sha256:1"),
        ("pre", "triton", "s3://models/repo/pre", "sha256:2"),
    ]
    assert ["warmup" in each for each in manifest["models"]] == [True, False], "the entry is warmed, and no other"
    # A pod that started at the same time may have found a folder that was uploaded meanwhile.
    cluster.put_pod(name, 1, ready=True, report=build_repository_report(all="sha256:1", pre="sha256:3", new="sha256:4"))
    cluster.settle()
    assert read_contents(cluster, name) == {"all": {"digest": "sha256:1"}, "pre": {"digest": "sha256:2"}}


def test_the_contents_of_a_revision_are_those_of_one_pod() -> None:
    cluster = build_repository()
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=build_repository_report(all="sha256:1", pre=""))
    cluster.put_pod(name, 1, ready=True, report=build_repository_report(all="sha256:3", pre="sha256:4"))
    cluster.settle()
    assert {each["digest"] for each in read_contents(cluster, name).values()} == {"sha256:3", "sha256:4"}


def test_a_note_of_later_changes_no_record_and_a_revision_that_returns_takes_the_newest_one() -> None:
    cluster = build_cluster(WRITERS, "first")
    cluster.reconcile()
    first = cluster.decision().wanted
    cluster.start_pods(first)
    cluster.settle()
    annotate(cluster, "second", "kubectl-edit")
    assert cluster.settle() == 0
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    second = cluster.decision().wanted
    cluster.start_pods(second)
    cluster.settle()
    assert record(cluster, first)[ANNOTATION_CHANGE_CAUSE] == "first"
    assert record(cluster, second)[ANNOTATION_CHANGE_CAUSE] == "second"
    annotate(cluster, "back again", "kubectl-conch")
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    annotations = record(cluster, first)
    assert (annotations[ANNOTATION_AUTHOR], annotations[ANNOTATION_CHANGE_CAUSE]) == ("kubectl-conch", "back again")
    assert read_contents(cluster, first)["magika"]["digest"] == "sha256:1"
    assert cluster.objects[Ref(CONTROLLER_REVISION, first)]["revision"] == 3


def annotate(cluster: Cluster, note: str, manager: str) -> None:
    """Annotate the service with a note, and be the one who writes the predictor next."""
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    body["metadata"]["annotations"] = {ANNOTATION_CHANGE_CAUSE: note}
    body["metadata"]["managedFields"] = [*WRITERS, entry(manager, "2026-11-03T10:00:00Z", *MODEL)]
    cluster.put(body)


def test_a_long_note_is_cut() -> None:
    cluster = build_cluster(WRITERS, "long" * 1000)
    cluster.reconcile()
    assert len(record(cluster, cluster.decision().wanted)[ANNOTATION_CHANGE_CAUSE].encode()) == 1024
