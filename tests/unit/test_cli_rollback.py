"""`kubectl conch rollback --variant`: the fields of a variant that restore a revision of its history, or a refusal."""

import copy
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.cli.history import build_history_text, build_history_value, find_revision
from conch.cli.options import CommandError
from conch.cli.printing import format_plain
from conch.cli.rollback import build_rollback_text, restore_revision
from conch.decide import revision_name
from conch.observe import Revision
from tests.unit.simulation import KEY
from tests.unit.test_cli_history import list_entries
from tests.unit.test_variant_stories import WEIGHTED, edit_variant, start_service_with_variants, start_variant

SERVICE = Ref(INFERENCE_SERVICE, KEY.name)
BASE: dict[str, Any] = {
    "model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://m/a", "storage": {"secretRef": {"name": "s3"}}},
    "triton": {"shmSize": "1Gi"},
    "resources": {"limits": {"cpu": 1}},
    "pod": {"serviceAccountName": "models"},
    "minReplicas": 2,
}


def build_service(predictor: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "magika", "namespace": "demo"},
        "spec": {"predictor": predictor, "variants": [{"name": "a"}, {"name": "b", "weight": 5, "predictor": variant}]},
    }


def build_revision(body: dict[str, Any]) -> Revision:
    """The revision of variant b as its ControllerRevision keeps it."""
    track = InferenceService.parse(body).of_variant("b")
    name = revision_name(track.track, track.spec.predictor)
    return Revision(name, 1, 1, {}, "", track.spec.predictor.to_wire())


def build_without(field: str) -> dict[str, Any]:
    return {key: value for key, value in BASE.items() if key != field}


PASTS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # then: predictor and variant; now: predictor; the fields that the variant needs
    ("as the predictor is", BASE, {}, BASE, {}),
    (
        "another folder",
        BASE,
        {"model": {"storageUri": "s3://m/b"}},
        BASE,
        {"model": {"storageUri": "s3://m/b"}},
    ),
    (
        "the predictor has moved on",
        BASE,
        {},
        {**BASE, "model": {**BASE["model"], "storageUri": "s3://m/c"}},
        {"model": {"storageUri": "s3://m/a"}},
    ),
    (
        "the predictor has another store",
        BASE,
        {},
        {**BASE, "model": {"modelFormat": {"name": "onnx"}, "storageUri": "https://h/c"}},
        {"model": {"storageUri": "s3://m/a", "storage": {"secretRef": {"name": "s3"}}}},
    ),
    (
        "it had another store",
        BASE,
        {"model": {"storageUri": "https://h/c"}},
        BASE,
        {"model": {"storageUri": "https://h/c"}},
    ),
    ("what the predictor has dropped", BASE, {}, build_without("resources"), {"resources": {"limits": {"cpu": 1}}}),
    ("defaults, where the predictor sets more", build_without("triton"), {}, BASE, {"triton": {}}),
    (
        "a field of its pods",
        BASE,
        {"pod": {"env": [{"name": "A", "value": "1"}]}},
        {**BASE, "pod": {"serviceAccountName": "models", "env": [{"name": "B", "value": "2"}]}},
        {"pod": {"env": [{"name": "A", "value": "1"}]}},
    ),
    ("a warm-up", {**BASE, "warmup": {}}, {}, BASE, {"warmup": {}}),
    ("how many pods", BASE, {"minReplicas": 7}, BASE, {}),
]


@pytest.mark.parametrize(("then", "overrides", "now", "words"), [past[1:] for past in PASTS], ids=[p[0] for p in PASTS])
def test_the_rollback_of_a_variant_restores_the_exact_revision(
    then: dict[str, Any], overrides: dict[str, Any], now: dict[str, Any], words: dict[str, Any]
) -> None:
    revision = build_revision(build_service(then, overrides))
    before = build_service(now, {"resources": {"limits": {"cpu": 9}}, "maxReplicas": 9, "autoscaling": {}})
    kept = copy.deepcopy(before)
    after = restore_revision(before, revision, "b")
    assert build_revision(after).name == revision.name
    assert after["spec"] == kept["spec"] | {
        "variants": [
            {"name": "a"},
            {"name": "b", "weight": 5, "predictor": {**words, "maxReplicas": 9, "autoscaling": {}}},
        ]
    }
    assert before == kept, "the argument is not changed"


UNSETTABLE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("a warm-up", BASE, {**BASE, "warmup": {}}, "warmup"),
    ("a field of its pods", BASE, {**BASE, "pod": {**BASE["pod"], "nodeSelector": {"gpu": "t4"}}}, "pod.nodeSelector"),
    ("the pod's fields", build_without("pod"), BASE, "pod.serviceAccountName"),
    ("the model's name", {**BASE, "model": {**BASE["model"], "name": "m"}}, BASE, "model.name"),
]


@pytest.mark.parametrize(("then", "now", "field"), [row[1:] for row in UNSETTABLE], ids=[row[0] for row in UNSETTABLE])
def test_a_field_that_a_variant_cannot_set_is_refused_with_its_name(
    then: dict[str, Any], now: dict[str, Any], field: str
) -> None:
    message = rf"revision 1 of variant b of magika had other values of {field} than spec.predictor has now, or none,"
    with pytest.raises(CommandError, match=message):
        restore_revision(build_service(now, {}), build_revision(build_service(then, {})), "b")


def test_a_rollback_in_the_history_of_a_variant_starts_the_rollout_of_that_variant() -> None:
    cluster = start_service_with_variants(WEIGHTED, steps=[{"weight": 5}, {"pause": "Manual"}])
    first = start_variant(cluster, "int8")
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/int8-v2"}})
    second = start_variant(cluster, "int8")
    cluster.request("promote 2", "int8")
    start_variant(cluster, "int8")
    track = cluster.snapshot().service.of_variant("int8")
    found = list_entries(cluster, "int8")
    rows = [line.split() for line in format_plain(build_history_text(track, found)).splitlines()[1:]]
    assert [(row[0], row[1], row[5]) for row in rows] == [("2", second, "stable"), ("1", first, "-")]
    assert build_history_value(track, found)["variant"] == "int8"
    assert format_plain(build_history_text(track, [])) == "variant int8 of magika has no revisions yet.\n"
    with pytest.raises(CommandError, match="variant int8 of magika has revision 2 already"):
        find_revision(track, found, 2)
    with pytest.raises(
        CommandError,
        match=r"variant int8 of magika has no revision 7 \(there are: 2, 1\); see: kubectl conch history magika -n demo"
        " --variant int8",
    ):
        find_revision(track, found, 7)
    entry = find_revision(track, found, 1)
    before = cluster.objects[SERVICE]
    fields: dict[str, Any] = {"f:spec": {"f:variants": {'k:{"name":"int8"}': {"f:predictor": {}}}}}
    before["metadata"]["managedFields"] = [{"manager": "argocd-controller", "time": "t", "fieldsV1": fields}]
    body = restore_revision(before, entry.revision, "int8")
    body["metadata"]["generation"] += 1
    text = " ".join(build_rollback_text(before, InferenceService.parse(body).of_variant("int8"), entry))
    assert f"The spec of variant int8 of magika has revision 1 ({first}) again, as generation 3." in text
    assert "to skip them: kubectl conch promote magika -n demo --variant int8 --full" in text
    assert "argocd-controller wrote variant int8 before." in text
    cluster.put(body)
    assert start_variant(cluster, "int8") == first
    assert cluster.status.variants[0].candidate == first
    assert cluster.status.candidate is None
