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
from conch_contract import ModelManifest, ModelSource, Warmup, WarmupRequest
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


def list_models(warmup: dict[str, Any] | None, **warmups: dict[str, Any] | None) -> dict[str, Any]:
    """Return a predictor of several models with their warm-ups; `warmup` is that of the entry, the last model."""
    models = [
        {
            "name": name,
            "modelFormat": {"name": "onnx"},
            "storageUri": f"s3://models/{name}",
            **({} if own is None else {"warmup": own}),
        }
        for name, own in {**warmups, "all": None}.items()
    ]
    return {"model": None, "models": models, "entry": "all", "warmup": warmup}


def build_models(warmup: dict[str, Any] | None, **warmups: dict[str, Any] | None) -> InferenceService:
    return InferenceService.parse(build_manifest(**list_models(warmup, **warmups)))


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


def test_each_of_several_models_is_warmed_by_its_pod_and_the_entry_by_the_job() -> None:
    """The ConfigMap of two models is mounted once; the Job mounts that of the entry."""
    made = build_models(
        {"configMapRef": {"name": "wake"}, "timeout": "30s"},
        a={"configMapRef": {"name": "others"}, "tolerance": "1%"},
        b={"configMapRef": {"name": "others"}, "timeout": "40s"},
        c={},
        d={"path": "warmup"},
        e=None,
    )
    revision = render_revision(made)
    manifest = ModelManifest.model_validate_json(revision.manifest)
    assert [model.warmup for model in manifest.models] == [
        Warmup(config_map="others", tolerance=0.01),
        Warmup(config_map="others", timeout_seconds=40),
        Warmup(),
        Warmup(path="warmup"),
        None,
        Warmup(config_map="wake", timeout_seconds=30),
    ]
    assert manifest.entry_source == manifest.models[-1]
    [agent] = revision.template["spec"]["initContainers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in agent["volumeMounts"] if "warmup" in mount["name"]}
    assert mounts == {"conch-warmup": "/conch/warmup/wake", "conch-warmup-1": "/conch/warmup/others"}
    volumes = {volume["name"]: volume.get("configMap") for volume in revision.template["spec"]["volumes"]}
    assert volumes["conch-warmup-1"] == {"name": "others", "optional": True}
    job = build_job(made)["spec"]
    assert job["activeDeadlineSeconds"] == 3 * 30 + 300
    [program] = job["template"]["spec"]["containers"]
    warmup_mounts = [mount["mountPath"] for mount in program["volumeMounts"] if "/conch/warmup" in mount["mountPath"]]
    assert warmup_mounts == ["/conch/warmup/wake"]


def test_a_variant_warms_the_models_of_the_predictor() -> None:
    """A model of a variant has no warm-up of its own, and that of the predictor tests its other files."""
    body = build_manifest(**list_models({}, a={"configMapRef": {"name": "wake"}}))
    models = [{"name": "a", "storageUri": "s3://models/other"}]
    body["spec"]["variants"] = [{"name": "int8", "predictor": {"models": models}}]
    model, entry = ModelManifest.model_validate_json(
        render_revision(InferenceService.parse(body).of_variant("int8")).manifest
    ).models
    assert (model.storage_uri, model.warmup) == ("s3://models/other", Warmup(config_map="wake"))
    assert entry.warmup == Warmup()


def test_a_warm_up_of_a_model_is_a_part_of_the_revision() -> None:
    names = {render_revision(build_models({}, a=warmup)).name for warmup in (None, {}, {"timeout": "1m"})}
    assert len(names) == 3


def test_the_jobs_of_a_manifest_without_entry_call_the_model_that_has_a_warm_up() -> None:
    """An operator of an earlier version has written it."""
    first, second = (
        ModelSource(name=name, format="onnx", storage_uri=f"s3://models/{name}", warmup=warmup)
        for name, warmup in (("first", None), ("second", Warmup()))
    )
    assert ModelManifest(models=(first, second)).entry_source == second
    assert ModelManifest(models=(first,)).entry_source == first
    assert ModelManifest(models=(first, second), entry="first").entry_source == first
    assert ModelManifest(models=()).entry_source is None
