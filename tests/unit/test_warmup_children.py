"""The objects of a warm-up: the manifest, the mounts and the Job."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api import InferenceService
from conch.decide.naming import revision_name
from conch.desire import PodDefaults, build_revision
from conch.desire.jobs import build_revision_job
from conch.desire.warmup import build_program
from conch.observe import Revision
from conch_contract import ModelManifest, Warmup, WarmupRequest
from conch_contract.revision_jobs import WARMUP
from tests.unit.simulation import build_manifest

GOLDEN = Path(__file__).parent / "golden" / "jobs"
POD = {"nodeSelector": {"gpu": "yes"}, "labels": {"team": "vision"}, "imagePullSecrets": [{"name": "registry"}]}
PLACES: dict[str, dict[str, Any]] = {
    "config-map": {"configMapRef": {"name": "wake"}},
    "folder": {"path": "warmup"},
    "made": {},
}


def build_service(warmup: dict[str, Any] | None, **predictor: Any) -> InferenceService:
    fields = predictor if warmup is None else {**predictor, "warmup": warmup}
    return InferenceService.parse(build_manifest("s3://models/magika", **fields))


def render_revision(of: InferenceService) -> Revision:
    name = revision_name(of.metadata.name, of.spec.predictor)
    return build_revision(of, name, 1, PodDefaults("conch/serving:1"))


def build_job(of: InferenceService, pods: int = 2) -> dict[str, Any]:
    made = render_revision(of)
    return build_revision_job(WARMUP, of, made, build_program(of, made, pods))


@pytest.mark.parametrize("place", PLACES)
def test_the_warm_up_job_is_its_golden_file(place: str) -> None:
    text = yaml.dump(build_job(build_service(PLACES[place], pod=POD)), sort_keys=True, width=120)
    golden = GOLDEN / f"warmup-{place}.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_claim_is_mounted_only_where_requests_are_read_from_it() -> None:
    def volumes(warmup: dict[str, Any]) -> set[str]:
        spec = InferenceService.parse(build_manifest("pvc://claim/m", warmup=warmup))
        return {volume["name"] for volume in build_job(spec)["spec"]["template"]["spec"]["volumes"]}

    assert "conch-claim" not in volumes({})
    assert "conch-claim" in volumes({"path": "warmup"})


def test_the_job_goes_where_the_pods_go_but_keeps_away_from_none() -> None:
    nodes: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    apart: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": []}
    made = build_service({}, pod={"affinity": {"nodeAffinity": nodes, "podAntiAffinity": apart}})
    assert build_job(made)["spec"]["template"]["spec"]["affinity"] == {"nodeAffinity": nodes}


def test_the_name_of_a_revision_depends_on_a_warm_up_only_if_it_has_one() -> None:
    without, bare, more = build_service(None), build_service({}), build_service({"timeout": "1m"})
    assert len({render_revision(each).name for each in (without, bare, more)}) == 3
    assert '"warmup"' not in render_revision(without).manifest
    assert '"warmup":{}' in render_revision(bare).manifest


def test_the_warm_up_field_becomes_the_contract_of_the_job() -> None:
    made = build_service(
        {
            "requests": [
                {
                    "name": "one",
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1.5], [2]]}],
                    "parameters": {"priority": 1},
                    "expected": [{"name": "y", "data": [3]}],
                }
            ],
            "tolerance": "0.5%",
            "stable": {"percentile": 95, "within": "10%"},
            "timeout": "90s",
        }
    )
    [model] = ModelManifest.model_validate_json(render_revision(made).manifest).models
    x = {"name": "x", "datatype": "FP32", "shape": [2], "data": [[1.5], [2]]}
    assert model.warmup == Warmup(
        requests=(
            WarmupRequest(
                name="one",
                body={"inputs": [x], "parameters": {"priority": 1}},
                expected=({"name": "y", "data": [3]},),
            ),
        ),
        tolerance=0.005,
        percentile=95,
        within=0.1,
        timeout_seconds=90,
    )


def test_operator_and_agent_have_the_same_defaults_of_the_warm_up() -> None:
    [model] = ModelManifest.model_validate_json(render_revision(build_service({})).manifest).models
    assert model.warmup == Warmup()


def test_a_config_map_is_mounted_for_the_agent_and_may_be_missing() -> None:
    template = render_revision(build_service({"configMapRef": {"name": "wake"}})).template
    [agent] = template["spec"]["initContainers"]
    assert {"name": "conch-warmup", "mountPath": "/conch/warmup/wake", "readOnly": True} in agent["volumeMounts"]
    volume = {"name": "conch-warmup", "configMap": {"name": "wake", "optional": True}}
    assert volume in template["spec"]["volumes"]
