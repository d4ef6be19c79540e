"""`kubectl conch history` and `rollback`, their pure parts."""

from typing import Any

import pytest

from conch.api import InferenceService, Predictor
from conch.api.kinds import CONTROLLER_REVISION, INFERENCE_SERVICE, Ref
from conch.api.names import ANNOTATION_CHANGE_CAUSE
from conch.cli.history import Entry, build_history_text, build_history_value, find_revision
from conch.cli.options import CommandError
from conch.cli.printing import format_plain
from conch.cli.rollback import build_rollback_text, restore_revision
from conch.decide import revision_name
from conch.observe import Revision
from conch.observe.identity import variant_of
from tests.unit.simulation import KEY, Cluster, build_manifest

SERVICE = Ref(INFERENCE_SERVICE, KEY.name)


def change_twice() -> Cluster:
    """Return a service with two revisions, the first with a note, and other replicas since."""
    body = build_manifest(minReplicas=2)
    body["metadata"]["annotations"] = {ANNOTATION_CHANGE_CAUSE: "the first", "team": "search"}
    cluster = Cluster(body)
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/v2", triton={"shmSize": "1Gi"})
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(minReplicas=5, maxReplicas=9)
    cluster.settle()
    return cluster


def list_entries(cluster: Cluster, variant: str = "") -> list[Entry]:
    found = [body for ref, body in cluster.objects.items() if ref.kind == CONTROLLER_REVISION]
    ours = [body for body in found if variant_of(body) == variant]
    read = [(Revision.parse(body), body["metadata"]["creationTimestamp"]) for body in ours]
    known = [Entry(revision, made) for revision, made in read if revision is not None]
    return sorted(known, key=lambda entry: entry.revision.number, reverse=True)


def test_the_history_is_a_table_with_the_newest_first() -> None:
    cluster = change_twice()
    text = format_plain(build_history_text(cluster.snapshot().service, list_entries(cluster)))
    first, second = (entry.revision.name for entry in reversed(list_entries(cluster)))
    assert [line.split() for line in text.splitlines()] == [
        ["NUMBER", "REVISION", "CREATED", "AUTHOR", "DIGEST", "ROLE", "NOTE"],
        ["2", second, "1970-01-12T13:46:40Z", "-", "1", "stable", "the", "first"],
        ["1", first, "1970-01-12T13:46:40Z", "-", "1", "-", "the", "first"],
    ]
    value = build_history_value(cluster.snapshot().service, list_entries(cluster))
    assert [one["predictor"]["model"]["storageUri"] for one in value["revisions"]] == [
        "s3://models/v2",
        "s3://models/magika",
    ]
    assert format_plain(build_history_text(cluster.snapshot().service, [])) == "magika has no revisions yet.\n"


def test_a_rollback_restores_the_pods_of_the_revision_and_keeps_the_replicas() -> None:
    cluster = change_twice()
    entry = find_revision(cluster.snapshot().service, list_entries(cluster), 1)
    before = cluster.objects[SERVICE]
    body = restore_revision(before, entry.revision)
    predictor = body["spec"]["predictor"]
    assert revision_name(KEY.name, Predictor.model_validate(predictor)) == entry.revision.name
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (5, 9)
    assert "triton" not in predictor
    assert {**body["spec"], "predictor": None} == {**before["spec"], "predictor": None}, "the rest stays"
    assert body["metadata"] == before["metadata"], "with resourceVersion, so that the API server rejects a stale update"


def test_the_note_travels_with_the_revision() -> None:
    cluster = change_twice()
    entry = find_revision(cluster.snapshot().service, list_entries(cluster), 1)
    before: dict[str, Any] = cluster.objects[SERVICE]
    before["metadata"]["annotations"][ANNOTATION_CHANGE_CAUSE] = "the latest"
    annotations = restore_revision(before, entry.revision)["metadata"]["annotations"]
    assert annotations == {ANNOTATION_CHANGE_CAUSE: "the first", "team": "search"}
    unsaid = Revision(**{**vars(entry.revision), "note": ""})
    assert restore_revision(before, unsaid)["metadata"]["annotations"] == {"team": "search"}
    assert before["metadata"]["annotations"][ANNOTATION_CHANGE_CAUSE] == "the latest", "the argument is not changed"


def test_rollback_refuses_an_unknown_number_and_the_current_one() -> None:
    cluster = change_twice()
    service = cluster.snapshot().service
    with pytest.raises(
        CommandError, match=r"magika has no revision 7 \(there are: 2, 1\); see: kubectl conch history magika"
    ):
        find_revision(service, list_entries(cluster), 7)
    with pytest.raises(CommandError, match="has revision 2 already"):
        find_revision(service, list_entries(cluster), 2)


def test_rollback_prints_notes_about_git_and_the_steps() -> None:
    cluster = change_twice()
    entry = find_revision(cluster.snapshot().service, list_entries(cluster), 1)
    before: dict[str, Any] = {"metadata": {"managedFields": []}}
    after = InferenceService.parse(restore_revision(cluster.objects[SERVICE], entry.revision))
    assert len(build_rollback_text(before, after, entry)) == 2
    fields: dict[str, Any] = {"f:spec": {"f:predictor": {}}}
    before = {"metadata": {"managedFields": [{"manager": "argocd-controller", "time": "t", "fieldsV1": fields}]}}
    text = " ".join(build_rollback_text(before, after, entry))
    assert "argocd-controller wrote the predictor before." in text
    assert "it restores Git's version unless Git changes too" in text
    stepped = after.model_copy(update={"spec": after.spec.model_copy(update={"rollout": _build_rollout()})})
    assert "kubectl conch promote magika -n demo --full" in " ".join(build_rollback_text(before, stepped, entry))


def _build_rollout() -> Any:
    body = build_manifest(rollout={"steps": [{"weight": 0}]})
    return InferenceService.parse(body).spec.rollout
