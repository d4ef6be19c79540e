"""The types of the resource: what is read, what is left out, and what is written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conch.api import Condition, InferenceService, ReplicaStatus, RevisionStatus, Status, duration_seconds
from conch.triton import build_model_config
from tests.support.examples import FILES

MODEL = {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/magika"}


def parsed(predictor: dict[str, Any], **top: Any) -> InferenceService:
    spec = {"predictor": {"model": MODEL, **predictor}}
    return InferenceService.parse({"metadata": {"name": "magika", "namespace": "demo"}, "spec": spec, **top})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("500us", 0.0005),
        ("2ms", 0.002),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("1m500ms", 60.5),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "ms", "2 ms", "2ns", "-1s", "1d", "1s ", "1.s", "s1"])
def test_a_text_that_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit"):
        duration_seconds(text)


@given(
    st.lists(st.tuples(st.integers(0, 999_999), st.sampled_from(["h", "m", "s", "ms", "us"])), min_size=1, max_size=4)
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert duration_seconds(text) == pytest.approx(sum(duration_seconds(f"{number}{unit}") for number, unit in parts))


def test_a_field_that_is_left_out_has_its_default() -> None:
    service = parsed({})
    predictor = service.spec.predictor
    assert service.model_name == "magika"
    assert predictor.min_replicas == 1
    assert predictor.max_replicas is None
    assert not predictor.scales
    assert predictor.triton.shm_size == "64Mi"
    assert predictor.triton.dynamic_batching is None
    assert predictor.resources.limits == {}
    assert service.spec.rollout.history_limit == 10
    assert service.spec.rollout.progress_deadline_seconds == 900


def test_a_model_may_have_a_name_of_its_own() -> None:
    model = {"name": "forest", "modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    assert parsed({"model": model}).model_name == "forest"


@pytest.mark.parametrize(
    ("replicas", "scales"),
    [
        ({"minReplicas": 2}, False),
        ({"minReplicas": 2, "maxReplicas": 2}, False),
        ({"maxReplicas": 2}, True),
    ],
)
def test_an_autoscaler_exists_only_where_replicas_may_change(replicas: dict[str, int], *, scales: bool) -> None:
    assert parsed(replicas).spec.predictor.scales is scales


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.stem)
def test_an_example_is_written_back_as_it_was_read(example: Path) -> None:
    for manifest in yaml.safe_load_all(example.read_text()):
        if manifest["kind"] != "InferenceService":
            continue
        service = InferenceService.parse(manifest)
        assert InferenceService.parse(service.to_wire()) == service
        if "minReplicas" not in manifest["spec"]["predictor"] or service.spec.predictor.min_replicas > 1:
            assert service.to_wire() == manifest


def test_defaults_that_the_server_filled_in_are_left_out_again() -> None:
    policy = {"latest": {"numVersions": 1}}
    filled = parsed({"minReplicas": 1, "triton": {"shmSize": "64Mi", "versionPolicy": policy}})
    bare = parsed({"triton": {"versionPolicy": {"latest": {}}}})
    assert filled.to_wire() == bare.to_wire()


def test_a_field_that_config_pbtxt_may_have_is_unset_until_it_is_typed() -> None:
    """Else the server's default would stand over the user's config.pbtxt, and the user has not set it."""
    triton = {
        "instanceGroups": [{"count": 2}, {"kind": "AUTO", "gpus": []}],
        "dynamicBatching": {"maxQueueDelay": "1ms", "preferredBatchSize": []},
    }
    config = build_model_config(parsed({"triton": triton}).models[0])
    assert json.loads(config.to_json()) == {
        "instanceGroups": [{"count": 2}, {"kind": "AUTO", "gpus": []}],
        "dynamicBatching": {"maxQueueDelayMicroseconds": 1000, "preferredBatchSize": []},
    }
    typed = parsed({"triton": triton}).to_wire()["spec"]["predictor"]["triton"]
    assert typed == triton


def test_an_empty_object_that_has_a_meaning_is_kept() -> None:
    predictor: dict[str, Any] = {"triton": {"dynamicBatching": {}, "versionPolicy": {"all": {}}}}
    assert parsed(predictor).to_wire()["spec"]["predictor"]["triton"] == predictor["triton"]


def test_objects_of_other_apis_are_handed_on_unchanged() -> None:
    pod = {
        "affinity": {"nodeAffinity": {"unheardOf": None}},
        "tolerations": [{"key": "a", "tolerationSeconds": 5}],
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}],
    }
    assert parsed({"pod": pod}).to_wire()["spec"]["predictor"]["pod"] == pod


def test_a_quantity_stays_the_number_or_the_text_that_it_was() -> None:
    limits = {"cpu": 2, "memory": "2Gi"}
    assert parsed({"resources": {"limits": limits}}).to_wire()["spec"]["predictor"]["resources"]["limits"] == limits


def test_null_is_absent_and_what_is_unknown_is_ignored() -> None:
    service = parsed({"pod": None, "maxReplicas": None, "notYetKnown": 1}, status=None)
    assert service == parsed({})


@pytest.mark.parametrize("models", [{}, {"model": MODEL, "models": [{"name": "m", **MODEL}]}])
def test_a_service_without_a_model_or_with_both_forms_is_rejected(models: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"spec\.predictor\n.*exactly one of model and models"):
        InferenceService.parse({"metadata": {"name": "m"}, "spec": {"predictor": models}})


def test_a_part_that_is_no_object_is_named() -> None:
    with pytest.raises(ValidationError, match=r"spec\.predictor\.pod"):
        parsed({"pod": "large"})


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parsed({}).spec.predictor.min_replicas = 2  # type: ignore[misc]


def test_a_child_names_its_owner() -> None:
    service = parsed({}, metadata={"name": "magika", "namespace": "demo", "uid": "1-2"})
    assert service.owner_reference() == {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "name": "magika",
        "uid": "1-2",
        "controller": True,
        "blockOwnerDeletion": True,
    }


READY = Condition(type="Ready", status="True", reason="Served", last_transition_time="2026-01-01T00:00:00Z")
STATUS = Status(
    observed_generation=2,
    conditions=(READY,),
    revisions=(RevisionStatus(name="m-1", phase="Draining", replicas=ReplicaStatus(ready=0, desired=1)),),
)


def test_a_status_is_written_with_its_zeros_and_read_back() -> None:
    wire = STATUS.to_wire()
    assert wire["revisions"][0]["weight"] == 0
    assert wire["revisions"][0]["replicas"] == {"ready": 0, "desired": 1}
    assert "stable" not in wire
    service = parsed({}, status=wire)
    assert service.status == STATUS
    assert InferenceService.parse(service.to_wire()).status == STATUS


def test_conditions_and_revisions_are_found_by_name() -> None:
    assert STATUS.condition("Ready") == READY
    assert STATUS.condition("Stalled") is None
    found = STATUS.revision("m-1")
    assert found is not None
    assert found.phase == "Draining"
    assert STATUS.revision("m-2") is None


def test_a_phase_of_a_newer_operator_is_read() -> None:
    assert (
        parsed({}, status={"revisions": [{"name": "m-1", "phase": "Warming"}]}).status.revisions[0].phase == "Warming"
    )
