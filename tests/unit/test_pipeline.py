"""A pipeline: its tensors are connected by name and checked, and its revision is a set as any other."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, Ref
from conch_agent.pipeline import build_ensemble
from conch_agent.reasons import Failure, Reason
from conch_contract import AgentReport, ModelReport, ModelSource, ModelState, PipelineStep, names
from tests.unit.simulation import Cluster, build_manifest

FP32, STRING = 11, 13
Fields = Sequence[tuple[str, int, Sequence[int]]]  # name, type, dimensions


def build_config(inputs: Fields, outputs: Fields, batch: int = 0, *, optional: Sequence[str] = ()) -> ModelConfig:
    config = ModelConfig(max_batch_size=batch)
    for name, data_type, dims in inputs:
        config.input.add(name=name, data_type=data_type, dims=dims, optional=name in optional)
    for name, data_type, dims in outputs:
        config.output.add(name=name, data_type=data_type, dims=dims)
    return config


IMAGE = ("image", STRING, [1])
PIXELS = ("pixels", FP32, [3, 224, 224])
SCORES = ("scores", FP32, [1000])
LABEL = ("label", STRING, [1])
CONFIGS = {
    "decode": build_config([IMAGE], [PIXELS, ("size", FP32, [2])]),
    "classify": build_config([("pixels", FP32, [3, -1, -1])], [SCORES]),
    "name": build_config([SCORES, ("threshold", FP32, [1]), ("language", STRING, [1])], [LABEL], optional=["language"]),
}
DECODE, CLASSIFY = PipelineStep(model="decode"), PipelineStep(model="classify")
NAME = PipelineStep(model="name", inputs={"threshold": "threshold"})


def build_source(*steps: PipelineStep) -> ModelSource:
    return ModelSource(name="all", format="triton", storage_uri="pipeline:all", steps=steps)


def test_tensors_are_connected_by_name() -> None:
    ensemble = build_ensemble(build_source(DECODE, CLASSIFY, NAME), CONFIGS)
    assert [(each.name, list(each.dims)) for each in ensemble.input] == [("image", [1]), ("threshold", [1])]
    assert [each.name for each in ensemble.output] == ["label"]
    steps = [(dict(step.input_map), dict(step.output_map)) for step in ensemble.ensemble_scheduling.step]
    assert steps == [
        ({"image": "image"}, {"pixels": "decode.pixels"}),
        ({"pixels": "decode.pixels"}, {"scores": "classify.scores"}),
        ({"scores": "classify.scores", "threshold": "threshold"}, {"label": "label"}),
    ]


def test_a_renamed_output_is_known_by_its_new_name() -> None:
    steps = (DECODE, PipelineStep(model="classify", outputs={"scores": "odds"}), NAME)
    with pytest.raises(
        Failure, match=r"reads 'scores' as FP32 \[1000\], and before it there is .*, 'size' .* and 'odds' \(FP32"
    ):
        build_ensemble(build_source(*steps), CONFIGS)
    for name in ("odds", "classify.scores"):
        inputs = {"scores": name, "threshold": "threshold", "language": "language"}
        ensemble = build_ensemble(build_source(*steps[:2], PipelineStep(model="name", inputs=inputs)), CONFIGS)
        assert [each.name for each in ensemble.input] == ["image", "threshold", "language"]
        assert [each.optional for each in ensemble.input] == [False, False, True]
        assert dict(ensemble.ensemble_scheduling.step[2].input_map)["scores"] == "classify.scores"


def test_a_tensor_that_several_steps_read_has_the_shape_that_all_accept() -> None:
    configs = {
        "free": build_config([("x", FP32, [-1])], [("a", FP32, [-1])], optional=["x"]),
        "fix": build_config([("x", FP32, [3]), ("a", FP32, [-1])], [("y", FP32, [3])]),
    }
    source = build_source(PipelineStep(model="free"), PipelineStep(model="fix", inputs={"x": "x"}))
    [sent] = build_ensemble(source, configs).input
    assert (list(sent.dims), sent.optional) == ([3], False)


def test_an_optional_input_stays_unset_or_is_optional_for_clients() -> None:
    configs = {
        "a": build_config([("x", FP32, [1]), ("hint", STRING, [1])], [("y", FP32, [1])], optional=["x", "hint"]),
        "b": build_config([("y", FP32, [1]), ("hint", FP32, [1]), ("more", FP32, [1])], [("z", FP32, [1])]),
    }
    for each in configs["b"].input[1:]:
        each.optional = True
    ensemble = build_ensemble(build_source(PipelineStep(model="a"), PipelineStep(model="b")), configs)
    assert [(each.name, each.optional) for each in ensemble.input] == [("x", True), ("hint", True)]
    assert dict(ensemble.ensemble_scheduling.step[1].input_map) == {"y": "a.y"}, "of another type, and not mapped"


@pytest.mark.parametrize(
    ("batches", "expected"), [((8, 4, 16), (4, [2])), ((8, 0, 8), (0, [-1, 2]))], ids=["all batch", "not all"]
)
def test_the_pipeline_batches_as_its_steps_do(batches: Sequence[int], expected: tuple[int, list[int]]) -> None:
    def step(number: int) -> ModelConfig:
        dims = [2] if batches[number] else [-1, 2]
        return build_config([(f"t{number}", FP32, dims)], [(f"t{number + 1}", FP32, dims)], batches[number])

    source = build_source(*(PipelineStep(model=name) for name in "abc"))
    ensemble = build_ensemble(source, {name: step(number) for number, name in enumerate("abc")})
    assert (ensemble.max_batch_size, list(ensemble.input[0].dims)) == expected
    assert list(ensemble.output[0].dims) == expected[1]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            (DECODE, CLASSIFY, PipelineStep(model="name")),
            "with inputs: {threshold: ...}; to have clients send it, write inputs: {threshold: threshold}.",
        ),
        (
            (DECODE, CLASSIFY, PipelineStep(model="name", inputs={"threshold": "sise"})),
            "step 'name' reads 'threshold', mapped to 'sise', as FP32 [1], and before it there is 'image'",
        ),
        ((CLASSIFY, DECODE), "step 'decode' reads 'image' as STRING [1], and before it there is 'pixels'"),
        (
            (DECODE, CLASSIFY.model_copy(update={"inputs": {"pixels": "size"}})),
            "as FP32 [3, -1, -1], and step 'decode'",
        ),
        ((DECODE, CLASSIFY.model_copy(update={"outputs": {"odds": "x"}})), "the outputs of its model are 'scores'"),
        (
            (DECODE.model_copy(update={"outputs": {"size": "image"}}),),
            "the client sends 'image', and step 'decode' returns a tensor",
        ),
        (
            (DECODE.model_copy(update={"outputs": {"size": "pixels"}}), CLASSIFY),
            "two outputs of step 'decode' have the",
        ),
        (
            (DECODE, CLASSIFY.model_copy(update={"outputs": {"scores": "decode.pixels"}})),
            "step 'decode' returns 'decode.pixels', and step 'classify' returns a tensor of that name, too",
        ),
    ],
    ids=[
        "not mapped",
        "a wrong name",
        "wrong order",
        "another shape",
        "unknown output",
        "an output named as an input",
        "two outputs of one name",
        "an output named as an inner tensor",
    ],
)
def test_steps_that_do_not_fit_are_refused_with_a_remedy(steps: tuple[PipelineStep, ...], words: str) -> None:
    with pytest.raises(Failure) as raised:
        build_ensemble(build_source(*steps), CONFIGS)
    assert raised.value.reason == Reason.INVALID_PIPELINE
    assert raised.value.message.startswith("Pipeline 'all': ")
    assert words in raised.value.message


def test_models_that_all_have_the_same_names_need_a_mapping() -> None:
    same = build_config([("INPUT0", FP32, [1])], [("OUTPUT0", FP32, [1])])
    configs = {"a": same, "b": same}
    with pytest.raises(Failure, match=r"Step 'b' reads 'INPUT0', which the client sends.*inputs: {INPUT0: OUTPUT0}"):
        build_ensemble(build_source(PipelineStep(model="a"), PipelineStep(model="b")), configs)
    mapped = PipelineStep(model="b", inputs={"INPUT0": "OUTPUT0"})
    ensemble = build_ensemble(build_source(PipelineStep(model="a"), mapped), configs)
    assert [each.name for each in (*ensemble.input, *ensemble.output)] == ["INPUT0", "OUTPUT0"]


def test_a_model_that_batches_beside_one_that_does_not_is_explained() -> None:
    configs = {
        "a": build_config([("x", FP32, [1])], [("y", FP32, [1])]),
        "b": build_config([("y", FP32, [1])], [("z", FP32, [1])], batch=4),
    }
    with pytest.raises(Failure, match=r"as FP32 \[-1, 1\].* as FP32 \[1\].*Set max_batch_size of both alike"):
        build_ensemble(build_source(PipelineStep(model="a"), PipelineStep(model="b")), configs)


def build_pipeline(**changes: Any) -> dict[str, Any]:
    models = [
        {"name": name, "modelFormat": {"name": "onnx"}, "storageUri": f"s3://models/{name}"} for name in ("a", "b")
    ]
    steps = [{"model": "a"}, {"model": "b", "inputs": {"x": "y"}}]
    return build_manifest(model=None, entry="all", models=models, pipeline=steps, warmup={}, **changes)


def test_a_pipeline_is_a_model_of_the_revision_with_its_warm_up_and_content() -> None:
    cluster = Cluster(build_pipeline())
    cluster.settle()
    name = cluster.decision().wanted
    reports = tuple(
        ModelReport(name=each, state=ModelState.READY, digest=f"sha256:{each}") for each in ("a", "b", "all")
    )
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True, models=reports))
    cluster.settle()
    sources = json.loads(cluster.objects[Ref(CONFIG_MAP, name)]["data"][names.MANIFEST_FILE])["models"]
    assert [source["name"] for source in sources] == ["a", "b", "all"]
    assert [source["digest"] for source in sources] == ["sha256:a", "sha256:b", "sha256:all"]
    assert sources[2]["steps"] == [{"model": "a"}, {"model": "b", "inputs": {"x": "y"}}]
    assert "warmup" in sources[2]
    assert "warmup" not in sources[0]
    template = cluster.objects[Ref(CONTROLLER_REVISION, name)]["data"]["template"]
    assert template["metadata"]["annotations"]["conch.dev/model"] == "all"


def test_a_variant_changes_a_step_of_the_pipeline() -> None:
    body = build_pipeline()
    changes = {"models": [{"name": "b", "storageUri": "s3://models/b-int8"}]}
    body["spec"]["variants"] = [{"name": "int8", "predictor": changes}]
    cluster = Cluster(body)
    cluster.settle()
    manifests = [
        json.loads(each["data"][names.MANIFEST_FILE]) for ref, each in cluster.objects.items() if ref.kind == CONFIG_MAP
    ]
    found = {(model["name"], model["storageUri"]) for manifest in manifests for model in manifest["models"]}
    assert {("b", "s3://models/b"), ("b", "s3://models/b-int8"), ("all", "pipeline:all")} <= found
    assert all(manifest["models"][2]["steps"] for manifest in manifests)
