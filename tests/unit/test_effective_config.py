"""The configuration that Triton uses: the origin of each value in the agent's report."""

import dataclasses
import json
from pathlib import Path

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.config import merge_config, set_content
from conch_agent.effective_config import build_config_values, find_written_values, limit_config
from conch_agent.model import Model
from conch_agent.monitor import TritonMonitor
from conch_agent.pipeline import build_ensemble
from conch_agent.pod import Server
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.triton import Triton
from conch_contract import (
    Accelerator,
    ConfigValue,
    DirectStrategy,
    DynamicBatching,
    InstanceGroup,
    ModelReport,
    ModelSource,
    ModelState,
    Optimization,
    PipelineStep,
    Priorities,
    QueuePolicy,
    RateLimiter,
    RateLimiterResource,
    SequenceBatching,
    TritonConfig,
    VersionPolicy,
)
from conch_contract.formats import FORMATS, FormatName
from tests.support.ports import free_port

FILE = """
    name: "other"
    max_batch_size: 16
    input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
    dynamic_batching { max_queue_delay_microseconds: 7 default_queue_policy { max_queue_size: 3 } }
    instance_group [{ name: "mine" count: 1 rate_limiter { priority: 2 } }]
    parameters { key: "a" value { string_value: "1" } }
    parameters { key: "b" value { string_value: "2" } }
"""
TYPED = TritonConfig(
    max_batch_size=8,
    instance_groups=(InstanceGroup(count=2),),
    dynamic_batching=DynamicBatching(max_queue_delay_microseconds=100),
    parameters={"b": "3"},
    text="optimization { graph { level: 1 } }",
)
# Added by Triton 2.51, as it was seen.
COMPLETED = """
    platform: "onnxruntime_onnx"
    default_model_filename: "model.onnx"
    version_policy { latest { num_versions: 1 } }
    optimization { input_pinned_memory { enable: true } }
"""


def list_values(
    file: str | None,
    typed: TritonConfig,
    completed: str = "",
    model_format: FormatName = "onnx",
    dropped: tuple[str, ...] = (),
) -> list[tuple[str, str, str]]:
    """Return the reported values of a model, if Triton adds some fields and replaces the dropped ones."""
    source = ModelSource(name="m", format=model_format, storage_uri="s3://b/m", config=typed)
    merged = merge_config(file, source, FORMATS[model_format].backend)
    written = json.loads(json.dumps(find_written_values(merged.config, merged.parts)))  # as in the folder's marker
    used = ModelConfig()
    used.CopyFrom(merged.config)
    set_content(used, "c0ffee")
    for field in dropped:
        used.ClearField(field)
    text_format.Merge(completed, used)
    return [(each.field, each.value, each.origin) for each in build_config_values(used, written)]


def test_each_value_has_its_origin() -> None:
    kind = 'instance_group [{ name: "m_0" kind: KIND_CPU count: 2 rate_limiter { priority: 2 } }]'
    assert list_values(FILE, TYPED, COMPLETED + kind, dropped=("instance_group",)) == [
        ("max_batch_size", "8", "Spec"),
        ("instance_group[0].count", "2", "Spec"),
        ("dynamic_batching.max_queue_delay_microseconds", "100", "Spec"),
        ("optimization.graph.level", "1", "Spec"),
        ("parameters['b']", 'string_value: "3"', "Spec"),
        ("instance_group[0].rate_limiter.priority", "2", "File"),
        ("dynamic_batching.default_queue_policy.max_queue_size", "3", "File"),
        ("parameters['a']", 'string_value: "1"', "File"),
        ("backend", '"onnxruntime"', "Conch"),
        ("platform", '"onnxruntime_onnx"', "Triton"),
        ("version_policy", "latest { num_versions: 1 }", "Triton"),
        ("instance_group[0].kind", "KIND_CPU", "Triton"),
        ("default_model_filename", '"model.onnx"', "Triton"),
        ("optimization.input_pinned_memory.enable", "true", "Triton"),
    ]


def test_a_model_without_settings_has_those_of_its_format_and_of_triton() -> None:
    group = 'instance_group [{ name: "m" count: 2 kind: KIND_CPU }] max_batch_size: 4'
    assert list_values(None, TritonConfig(), group) == [
        ("backend", '"onnxruntime"', "Conch"),
        ("max_batch_size", "4", "Triton"),
        ("instance_group[0]", "count: 2 kind: KIND_CPU", "Triton"),
    ]


@pytest.mark.parametrize(
    ("file", "typed", "expected"),
    [
        ("max_batch_size: 8", TritonConfig(max_batch_size=8), ("max_batch_size", "8", "Spec")),
        ("", TritonConfig(text="max_batch_size: 8"), ("max_batch_size", "8", "Spec")),
        ('backend: "onnxruntime"', TritonConfig(), ("backend", '"onnxruntime"', "Conch")),
        ("dynamic_batching {}", TritonConfig(), ("dynamic_batching", "{}", "File")),
        ("", TritonConfig(dynamic_batching=DynamicBatching()), ("dynamic_batching", "{}", "Spec")),
        ("version_policy { all {} }", TritonConfig(), ("version_policy", "all { }", "File")),
        (
            "",
            TritonConfig(version_policy=VersionPolicy(latest=2)),
            ("version_policy", "latest { num_versions: 2 }", "Spec"),
        ),
        ("", TritonConfig(response_cache=True), ("response_cache.enable", "true", "Spec")),
        ("", TritonConfig(instance_groups=(InstanceGroup(kind="CPU"),)), ("instance_group[0].count", "1", "Conch")),
        (
            "instance_group [{ count: 1 }]",
            TritonConfig(instance_groups=(InstanceGroup(kind="CPU"),)),
            ("instance_group[0].count", "1", "File"),
        ),
        (
            "instance_group [{ count: 1 }, { count: 2 }]",
            TritonConfig(text="instance_group [{ count: 4 }]"),
            ("instance_group[0]", "count: 4", "Spec"),
        ),
        (
            'metric_tags { key: "a" value: "line\\nline" }',
            TritonConfig(),
            ("metric_tags['a']", '"line\\nline"', "File"),
        ),
    ],
)
def test_the_origin_of_a_value(file: str, typed: TritonConfig, expected: tuple[str, str, str]) -> None:
    assert expected in list_values(file, typed)


def test_a_value_that_triton_replaces_is_its_own() -> None:
    values = list_values(
        "max_batch_size: 8", TritonConfig(), "max_batch_size: 4", model_format="triton", dropped=("max_batch_size",)
    )
    assert values == [("max_batch_size", "4", "Triton")]


def test_names_tensors_steps_the_content_and_zeros_are_left_out() -> None:
    text = """
        name: "m" max_batch_size: 4
        input [{ name: "x" data_type: TYPE_FP32 dims: [2] }] output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
        ensemble_scheduling { step [{ model_name: "a" model_version: -1 }] }
        instance_group [{ name: "m_0" }] response_cache {} optimization { priority: PRIORITY_DEFAULT }
    """
    config = text_format.Parse(text, ModelConfig())
    set_content(config, "c0ffee")
    assert build_config_values(config, {}) == (ConfigValue(field="max_batch_size", value="4", origin="Triton"),)


def test_all_of_a_pipeline_is_conchs() -> None:
    source = ModelSource(
        name="all",
        format="triton",
        storage_uri="pipeline:all",
        steps=(PipelineStep(model="a"), PipelineStep(model="b", inputs={"x": "y"})),
    )
    step = ModelConfig(max_batch_size=4)
    step.input.add(name="x", data_type=11, dims=[2])
    step.output.add(name="y", data_type=11, dims=[2])
    ensemble = build_ensemble(source, {"a": step, "b": step})
    values = build_config_values(ensemble, find_written_values(ensemble, {}))
    assert [(each.field, each.value, each.origin) for each in values] == [
        ("platform", '"ensemble"', "Conch"),
        ("max_batch_size", "4", "Conch"),
    ]


def test_at_most_sixteen_values_are_reported_and_long_ones_are_cut() -> None:
    long = {f"p{number:02}{'x' * 200}": "v" * 200 for number in range(20)}
    source = ModelSource(name="m", format="triton", storage_uri="s3://b/m", config=TritonConfig(parameters=long))
    merged = merge_config("max_batch_size: 4", source, "")
    values = build_config_values(merged.config, find_written_values(merged.config, merged.parts))
    assert len(values) == 16
    assert all(each.origin == "Spec" for each in values)
    assert {(len(each.field), len(each.value)) for each in values} == {(120, 80)}


def test_an_enumeration_that_this_agent_does_not_know_is_a_number() -> None:
    config = ModelConfig()
    config.instance_group.add().ParseFromString(b"\x20\x63")  # kind: 99
    assert build_config_values(config, {}) == (
        ConfigValue(field="instance_group[0]", value="kind: 99", origin="Triton"),
    )


def test_the_reports_of_many_models_are_bounded_and_the_entry_comes_first() -> None:
    values = tuple(ConfigValue(field=f"f{number}", value="1", origin="Spec") for number in range(16))
    models = [ModelReport(name=f"m{number:03}", state=ModelState.READY, config=values) for number in range(500)]
    limited = limit_config(models, {"m400"})
    assert [model.name for model in limited] == [model.name for model in models]
    assert [model.name for model in limited if model.config] == [*(f"m{number:03}" for number in range(15)), "m400"]


def test_the_marker_of_a_folder_keeps_the_written_values(tmp_path: Path) -> None:
    source = ModelSource(name="m", format="onnx", storage_uri="s3://b/m", config=TYPED)
    merged = merge_config(FILE, source, "onnxruntime")
    written = find_written_values(merged.config, merged.parts)
    model = RepositoryModel("a", "b", "c", 1, (1,), 0.0, "boot", written=written)
    (tmp_path / "marker").write_text(json.dumps(dataclasses.asdict(model)))
    assert json.loads((tmp_path / "marker").read_text())["written"] == model.written


def test_typed_fields_of_every_kind_are_the_specs() -> None:
    typed = TritonConfig(
        max_batch_size=8,
        instance_groups=(InstanceGroup(kind="GPU", count=2, gpus=(0, 1)),),
        dynamic_batching=DynamicBatching(
            max_queue_delay_microseconds=100,
            preferred_batch_size=(4, 8),
            queue_policy=QueuePolicy(timeout_action="DELAY", default_timeout_microseconds=5, max_queue_size=2),
            priorities=Priorities(levels=2, default_level=1),
        ),
        version_policy=VersionPolicy(specific=(1, 3)),
        parameters={"a": "b"},
    )
    values = list_values(None, typed, model_format="triton")
    assert {origin for _, _, origin in values} == {"Spec"}
    assert ("instance_group[0]", "count: 2 gpus: [0, 1] kind: KIND_GPU", "Spec") in values
    assert ("dynamic_batching.preferred_batch_size", "[4, 8]", "Spec") in values
    assert ("dynamic_batching.default_queue_policy.timeout_action", "DELAY", "Spec") in values


def test_sequences_optimizations_and_rate_limiters_are_the_specs_beside_the_files() -> None:
    own = """
        sequence_batching { max_sequence_idle_microseconds: 7 oldest { max_candidate_sequences: 3 } }
        optimization { priority: PRIORITY_MIN cuda { busy_wait_events: true } }
        instance_group [{ count: 1 rate_limiter { resources [{ name: "a" count: 1 }] priority: 2 } }]
    """
    typed = TritonConfig(
        instance_groups=(InstanceGroup(rate_limiter=RateLimiter(resources=(RateLimiterResource(name="r", count=4),))),),
        sequence_batching=SequenceBatching(direct=DirectStrategy(minimum_slot_utilization=0.3)),
        optimization=Optimization(
            cuda_graphs=True,
            input_pinned_memory=True,
            gpu_accelerators=(Accelerator(name="tensorrt", parameters={"precision_mode": "FP16"}),),
        ),
    )
    accelerator = "optimization.execution_accelerators.gpu_execution_accelerator[0]"
    assert set(list_values(own, typed, model_format="triton")) == {
        ("sequence_batching.direct.minimum_slot_utilization", "0.3", "Spec"),
        ("instance_group[0].rate_limiter.resources[0].name", '"r"', "Spec"),
        ("instance_group[0].rate_limiter.resources[0].count", "4", "Spec"),
        ("optimization.cuda.graphs", "true", "Spec"),
        (accelerator, 'name: "tensorrt" parameters[\'precision_mode\']: "FP16"', "Spec"),
        ("optimization.input_pinned_memory.enable", "true", "Spec"),
        ("sequence_batching.max_sequence_idle_microseconds", "7", "File"),
        ("instance_group[0].count", "1", "File"),
        ("instance_group[0].rate_limiter.priority", "2", "File"),
        ("optimization.priority", "PRIORITY_MIN", "File"),
        ("optimization.cuda.busy_wait_events", "true", "File"),
    }


async def test_a_lost_answer_leaves_the_model_ready_without_a_configuration(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    triton = Triton(f"127.0.0.1:{free_port()}", None)  # where no Triton is
    monitor = TritonMonitor(settings, triton)
    source = ModelSource(name="m", format="onnx", storage_uri="s3://b/m")
    model = Model(source, Server(settings, triton, monitor, _stay))
    model._content.current = RepositoryModel("a", "b", "c", 1, (1,), 0.0, "boot")
    model._set_ready()
    await model._read_config()
    assert (model._status.state, model._status.failure, model.report.config) == (ModelState.READY, None, ())
    await triton.close()
    await model._read_config()  # the closed connection would raise: it is read once after a load


async def _stay() -> bool:
    return False
