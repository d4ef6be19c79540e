"""The response cache: one field sets flag and configuration, and a model that has it is not swapped."""

import json
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import DEPLOYMENT, Ref
from conch.desire.pod import build_pod_template
from conch.desire.revision import build_model_manifest
from conch.triton import list_configured_values
from tests.unit.simulation import DEFAULTS, Cluster, build_manifest

CACHE = {"responseCache": {"size": "64Mi"}}
REPOSITORY = {"modelFormat": {"name": "repository"}, "storageUri": "s3://models/repo"}
STEP = {"name": "a", "modelFormat": {"name": "onnx"}, "storageUri": "s3://models/a"}
PIPELINE = {"models": [STEP], "pipeline": [{"model": "a"}], "entry": "all"}


def build_service(**predictor: Any) -> InferenceService:
    body = build_manifest(**predictor)
    if "models" in predictor:
        del body["spec"]["predictor"]["model"]
    return InferenceService.parse(body)


def list_flags(service: InferenceService) -> list[str]:
    """Return the flags of the cache in the command of Triton."""
    [triton] = build_pod_template(service, "magika-1", DEFAULTS)["spec"]["containers"]
    words = " ".join(triton["command"]).split()
    return [word for word in words if "cache" in word]


def read_cache_fields(service: InferenceService) -> dict[str, tuple[bool, bool]]:
    """Return by model whether its configuration turns the cache on, and whether its Triton has one."""
    models = json.loads(build_model_manifest(service).to_json())["models"]
    return {
        model["name"]: (model.get("config", {}).get("responseCache", False), model.get("hasResponseCache", False))
        for model in models
    }


@pytest.mark.parametrize(
    ("size", "count"),
    [("64Mi", 67108864), (1048576, 1048576), ("2M", 2000000), ("1.5Mi", 1572864), ("2097152.5", 2097153)],
)
def test_one_field_sets_the_flag_of_the_server_and_the_field_of_the_model(size: int | str, count: int) -> None:
    service = build_service(triton={"responseCache": {"size": size}})
    assert list_flags(service) == [f"--cache-config=local,size={count}"]
    assert read_cache_fields(service) == {"magika": (True, True)}
    [value] = list_configured_values(service.models)
    assert (value.field, value.value, value.set_by) == ("response_cache.enable", "true", "triton.responseCache")


def test_a_service_without_a_cache_has_neither() -> None:
    service = build_service()
    assert list_flags(service) == []
    assert read_cache_fields(service) == {"magika": (False, False)}


def test_a_cache_by_a_flag_is_one_that_the_configuration_may_use() -> None:
    for flag in ("--cache-config=redis,host=cache", "--response-cache-byte-size=1048576"):
        service = build_service(triton={"args": [flag]})
        assert list_flags(service) == [flag]
        assert read_cache_fields(service) == {"magika": (False, True)}


@pytest.mark.parametrize(
    ("predictor", "models"),
    [
        ({"models": [STEP, {**STEP, "name": "b"}], "entry": "a"}, ["a", "b"]),
        ({"models": [STEP], "entry": "a"}, ["a"]),
        (PIPELINE, ["a", "all"]),
        ({"model": REPOSITORY, "entry": "all"}, ["all"]),
    ],
    ids=["several", "list-of-one", "pipeline", "repository"],
)
def test_several_models_share_the_cache_and_each_turns_it_on_itself(
    predictor: dict[str, Any], models: list[str]
) -> None:
    service = build_service(triton=CACHE, **predictor)
    assert list_flags(service) == ["--cache-config=local,size=67108864"]
    assert read_cache_fields(service) == dict.fromkeys(models, (False, True))
    assert list_configured_values(service.models) == ()


@pytest.mark.parametrize("triton", [CACHE, {"args": ["--cache-config=local,size=1048576"]}], ids=["field", "flag"])
@pytest.mark.parametrize("strategy", ["Swap", "Progressive"])
def test_a_model_with_a_cache_changes_with_pods_of_its_own(triton: dict[str, Any], strategy: str) -> None:
    cluster = Cluster(build_manifest(minReplicas=2, triton=triton, rollout={"strategy": strategy}))
    cluster.reports_on_request = True
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    cluster.edit(uri="s3://models/other", triton=triton)
    cluster.settle()
    candidate = cluster.decision().wanted
    assert Ref(DEPLOYMENT, candidate) in cluster.objects
    assert cluster.served() == {stable: 2}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.strategy == "Progressive"
    obstacle = cluster.status.rollout.swap_obstacle
    assert ("response cache would return answers of the old model" in obstacle) == (strategy == "Swap")


def test_a_cache_of_another_size_takes_pods_of_its_own() -> None:
    """The change that removes it, too: the pods that serve still have it."""
    for after in ({"responseCache": {"size": "128Mi"}}, {"shmSize": "64Mi"}):
        cluster = Cluster(build_manifest(minReplicas=2, triton=CACHE, rollout={"strategy": "Swap"}))
        cluster.reports_on_request = True
        cluster.reconcile()
        cluster.start_pods(cluster.decision().wanted)
        cluster.settle()
        cluster.edit(triton=after)
        cluster.settle()
        assert cluster.status.rollout is not None
        assert "triton.responseCache" in cluster.status.rollout.swap_obstacle
