"""The configuration that Triton gets: the user's own, what was typed over it, and the name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.config import (
    CONTENT_PARAMETER,
    MergedConfig,
    merge_config,
    parse_config,
    select_versions,
    set_content,
    to_text,
)
from conch_agent.layout import plan_layout
from conch_agent.overrides import compare
from conch_agent.reasons import Failure, Reason
from conch_contract import (
    Accelerator,
    DirectStrategy,
    DynamicBatching,
    InstanceGroup,
    ModelSource,
    OldestStrategy,
    Optimization,
    Priorities,
    QueuePolicy,
    RateLimiter,
    RateLimiterResource,
    SequenceBatching,
    TritonConfig,
    VersionPolicy,
)


def _source(config: TritonConfig | None = None) -> ModelSource:
    return ModelSource(name="m", format="onnx", storage_uri="s3://b/m", config=config or TritonConfig())


def test_the_configuration_of_an_untyped_model_has_only_name_backend_and_content() -> None:
    config = merge_config(None, _source(), "onnxruntime").config
    set_content(config, "c0ffee")
    expected = ModelConfig(name="m", backend="onnxruntime")
    expected.parameters[CONTENT_PARAMETER].string_value = "c0ffee"
    assert config == expected


def test_a_field_of_the_spec_wins_over_the_file() -> None:
    own = """
        name: "other" max_batch_size: 1 platform: "onnxruntime_onnx"
        instance_group [{count: 3}]
        dynamic_batching { preferred_batch_size: [2] max_queue_delay_microseconds: 7 }
        version_policy { all {} }
        response_cache { enable: true }
    """
    typed = TritonConfig(
        max_batch_size=32,
        instance_groups=(InstanceGroup(kind="GPU", count=2, gpus=(0, 1)),),
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=100),
        version_policy=VersionPolicy(latest=2),
    )
    config = merge_config(own, _source(typed), "onnxruntime").config
    assert (config.name, config.backend, config.platform, config.max_batch_size) == ("m", "onnxruntime", "", 32)
    assert config.response_cache.enable
    assert len(config.instance_group) == 1
    group = config.instance_group[0]
    assert (group.kind, group.count, list(group.gpus)) == (1, 2, [0, 1])
    assert list(config.dynamic_batching.preferred_batch_size) == [2]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.version_policy.latest.num_versions == 2


def test_a_model_of_tritons_own_format_keeps_its_backend() -> None:
    assert merge_config('backend: "tensorrt"', _source(), "").config.backend == "tensorrt"


PROGRAMS = {
    "model_operations": 'model_operations { op_library_filename: "/conch/models/m/1/ops.so" }',
    "runtime": 'runtime: "libother.so"',
    "model_repository_agents": 'model_repository_agents { agents [{ name: "other" }] }',
    "parameters.EXECUTION_ENV_PATH": 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/a.tar.gz" } }',
    "parameters.trt_extra_plugin_lib_paths": """
        optimization { execution_accelerators { gpu_execution_accelerator [{
            name: "tensorrt" parameters { key: "trt_extra_plugin_lib_paths" value: "/conch/models/m/1/plugin.so" }
        }] } }
    """,
}


@pytest.mark.parametrize(("field", "own"), PROGRAMS.items(), ids=PROGRAMS)
def test_a_model_that_is_data_does_not_become_a_program_by_its_config(field: str, own: str) -> None:
    with pytest.raises(Failure) as raised:
        merge_config(f"max_batch_size: 8 {own}", _source(), "onnxruntime")
    assert raised.value.reason == Reason.INVALID_CONFIG
    assert f"config.pbtxt has {field}, which may run a program" in raised.value.message
    program = _source().model_copy(update={"format": "triton"})
    assert merge_config(f'backend: "onnxruntime" {own}', program, "").config.ByteSize() > 0


def test_a_file_that_cannot_be_read_is_named_with_the_place() -> None:
    with pytest.raises(Failure) as raised:
        merge_config("max_batch_size: many", _source(), "")
    assert raised.value.reason == Reason.INVALID_CONFIG
    assert "1:17" in raised.value.message


def test_a_number_that_its_field_cannot_hold_is_refused() -> None:
    with pytest.raises(Failure) as raised:
        merge_config(f"max_batch_size: {10**20}", _source(), "")
    assert raised.value.reason == Reason.INVALID_CONFIG


def test_the_text_is_read_again_as_it_was() -> None:
    config = merge_config('input [{name: "x" data_type: TYPE_FP32 dims: [-1]}]', _source(), "python").config
    assert merge_config(to_text(config), _source(), "python").config == config


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (None, (3,)),
        (VersionPolicy(latest=2), (2, 3)),
        (VersionPolicy(latest=9), (1, 2, 3)),
        (VersionPolicy(all=True), (1, 2, 3)),
        (VersionPolicy(specific=(3, 1)), (1, 3)),
    ],
)
def test_wanted_versions(policy: VersionPolicy | None, wanted: tuple[int, ...]) -> None:
    config = merge_config(None, _source(TritonConfig(version_policy=policy)), "").config
    assert select_versions(config, [2, 1, 3]) == wanted


PRIORITIES = """
    dynamic_batching {
        preferred_batch_size: [4, 8] max_queue_delay_microseconds: 500
        priority_levels: 2 default_priority_level: 1
        default_queue_policy { max_queue_size: 3 timeout_action: DELAY default_timeout_microseconds: 20 }
        priority_queue_policy { key: 2 value { default_timeout_microseconds: 9 } }
    }
"""
GROUPS = """
    instance_group [
        { name: "a" kind: KIND_GPU count: 1 gpus: [0] profile: ["p"] host_policy: "h"
          rate_limiter { resources [{ name: "r" count: 4 }] priority: 2 } },
        { name: "b" kind: KIND_CPU count: 3 }
    ]
"""


def _merge(own: str, config: TritonConfig, kind: str = "triton", backend: str = "") -> MergedConfig:
    source = ModelSource.model_validate({"name": "m", "format": kind, "storage_uri": "s3://b/m", "config": config})
    return merge_config(own, source, backend)


def test_a_typed_field_leaves_the_fields_beside_it_in_dynamic_batching() -> None:
    merged = _merge(PRIORITIES, TritonConfig(dynamic_batching=DynamicBatching(max_queue_delay_microseconds=1000)))
    expected = ModelConfig()
    text_format.Parse(PRIORITIES, expected)
    expected.dynamic_batching.max_queue_delay_microseconds = 1000
    assert merged.config.dynamic_batching == expected.dynamic_batching
    assert [str(override) for override in merged.overrides] == [
        "dynamic_batching.max_queue_delay_microseconds is 1000 (config.pbtxt: 500)"
    ]


@pytest.mark.parametrize("own", ["", "response_cache { enable: false }", "response_cache { enable: true }"])
def test_the_response_cache_of_the_service_is_that_of_its_model(own: str) -> None:
    assert _merge(own, TritonConfig(response_cache=True)).config.response_cache.enable
    text = TritonConfig(response_cache=True, text="response_cache { enable: true }")
    assert _merge(own, text).config.response_cache.enable, "twice is no conflict"
    assert _merge(own, TritonConfig()).config.response_cache.enable == ("true" in own), "another one decides itself"


def test_queue_policies_and_priorities_keep_what_the_file_has_beside_them() -> None:
    typed = DynamicBatching(
        queue_policy=QueuePolicy(max_queue_size=7, timeout_action="REJECT"),
        priorities=Priorities(levels=3, default_level=2),
    )
    expected = ModelConfig()
    text_format.Parse(PRIORITIES, expected)
    batching = expected.dynamic_batching
    batching.default_queue_policy.max_queue_size = 7
    batching.default_queue_policy.timeout_action = 0
    batching.priority_levels, batching.default_priority_level = 3, 2
    assert _merge(PRIORITIES, TritonConfig(dynamic_batching=typed)).config.dynamic_batching == batching


def test_policies_of_levels_that_there_are_no_longer_are_dropped_and_listed() -> None:
    one = DynamicBatching(priorities=Priorities(levels=1, default_level=1))
    merged = _merge(PRIORITIES, TritonConfig(dynamic_batching=one))
    assert not merged.config.dynamic_batching.priority_queue_policy
    assert [override.field for override in merged.overrides] == [
        "dynamic_batching.priority_levels",
        "dynamic_batching.priority_queue_policy[2]",
    ]


def test_a_parameter_of_the_manifest_replaces_that_of_the_file() -> None:
    own = 'parameters { key: "a" value { string_value: "1" } } parameters { key: "b" value { string_value: "2" } }'
    merged = _merge(own, TritonConfig(parameters={"b": "3", "c": "4"}))
    assert {name: value.string_value for name, value in merged.config.parameters.items()} == {
        "a": "1",
        "b": "3",
        "c": "4",
    }
    [override] = merged.overrides
    assert override.field.startswith("parameters['b']")


def test_a_parameter_of_the_manifest_makes_no_program_of_a_model_that_is_data() -> None:
    batching = TritonConfig(parameters={"TRITON_BATCH_STRATEGY_PATH": "1/any"})
    with pytest.raises(Failure, match="may run a program"):
        _merge("", batching, "onnx", "onnxruntime")
    typed = TritonConfig(parameters={"EXECUTION_ENV_PATH": "env.tar.gz"})
    with pytest.raises(
        Failure, match=r"triton of the InferenceService has parameters\.EXECUTION_ENV_PATH, which may run"
    ):
        _merge("", typed, "onnx", "onnxruntime")
    assert _merge("", typed, "python", "python").config.parameters["EXECUTION_ENV_PATH"].string_value == "env.tar.gz"
    plugin = Accelerator(name="tensorrt", parameters={"trt_extra_plugin_lib_paths": "plugin.so"})
    with pytest.raises(Failure, match=r"triton of the InferenceService has parameters\.trt_extra_plugin_lib_paths"):
        _merge("", TritonConfig(optimization=Optimization(gpu_accelerators=(plugin,))), "onnx", "onnxruntime")


def test_an_empty_message_changes_nothing_and_an_empty_list_empties() -> None:
    assert not _merge(PRIORITIES, TritonConfig(dynamic_batching=DynamicBatching())).overrides
    emptied = _merge(PRIORITIES, TritonConfig(dynamic_batching=DynamicBatching(preferred_batch_size=())))
    assert not emptied.config.dynamic_batching.preferred_batch_size
    assert str(emptied.overrides[0]) == "dynamic_batching.preferred_batch_size is [] (config.pbtxt: [4, 8])"
    assert _merge("", TritonConfig(dynamic_batching=DynamicBatching())).config.HasField("dynamic_batching")


def test_a_typed_group_leaves_the_fields_beside_it_in_its_group() -> None:
    typed = (InstanceGroup(count=2), InstanceGroup(kind="GPU", gpus=(1,)))
    merged = _merge(GROUPS, TritonConfig(instance_groups=typed))
    first, second = merged.config.instance_group
    assert (first.count, first.kind, list(first.gpus), list(first.profile), first.host_policy) == (
        2,
        1,
        [0],
        ["p"],
        "h",
    )
    assert first.rate_limiter.resources[0].count == 4
    assert (second.name, second.kind, second.count, list(second.gpus)) == ("b", 1, 3, [1])
    assert [str(override) for override in merged.overrides] == [
        "instance_group[0].count is 2 (config.pbtxt: 1)",
        "instance_group[1].kind is KIND_GPU (config.pbtxt: KIND_CPU)",
    ]


def test_a_single_group_of_the_file_is_the_base_of_all() -> None:
    own = 'instance_group [{ name: "a" kind: KIND_MODEL rate_limiter { priority: 2 } }]'
    merged = _merge(own, TritonConfig(instance_groups=(InstanceGroup(count=1), InstanceGroup(kind="CPU", count=2))))
    first, second = merged.config.instance_group
    assert (first.name, first.kind, first.rate_limiter.priority) == ("a", 3, 2)
    assert (second.name, second.kind, second.count, second.rate_limiter.priority) == ("", 2, 2, 2)


def test_a_typed_rate_limiter_leaves_what_it_does_not_set() -> None:
    resource = RateLimiterResource(name="s", count=1, is_global=True)
    limiters = (RateLimiter(priority=3), RateLimiter(resources=(resource,)), RateLimiter())
    own = 'instance_group [{ rate_limiter { resources [{ name: "r" count: 4 }] priority: 2 } }]'
    typed = TritonConfig(instance_groups=tuple(InstanceGroup(rate_limiter=each) for each in limiters))
    assert [" ".join(str(group.rate_limiter).split()) for group in _merge(own, typed).config.instance_group] == [
        'resources { name: "r" count: 4 } priority: 3',
        'resources { name: "s" global: true count: 1 } priority: 2',
        'resources { name: "r" count: 4 } priority: 2',
    ]


OLDEST = "max_candidate_sequences: 100 preferred_batch_size: 4 preferred_batch_size: 8"
SEQUENCES = f"""
    sequence_batching {{
        max_sequence_idle_microseconds: 60
        control_input [{{ name: "START" control [{{ kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] }}] }}]
        oldest {{ {OLDEST} }}
    }}
"""


@pytest.mark.parametrize(
    ("typed", "expected", "overridden"),
    [
        (SequenceBatching(), SEQUENCES, []),
        (
            SequenceBatching(max_sequence_idle_microseconds=7),
            SEQUENCES.replace("microseconds: 60", "microseconds: 7"),
            ["sequence_batching.max_sequence_idle_microseconds is 7 (config.pbtxt: 60)"],
        ),
        (
            SequenceBatching(oldest=OldestStrategy(max_candidate_sequences=5, max_queue_delay_microseconds=9)),
            SEQUENCES.replace("sequences: 100", "sequences: 5 max_queue_delay_microseconds: 9"),
            ["sequence_batching.oldest.max_candidate_sequences is 5 (config.pbtxt: 100)"],
        ),
        (
            SequenceBatching(oldest=OldestStrategy(preferred_batch_size=(), preserve_ordering=True)),
            SEQUENCES.replace("preferred_batch_size: 4 preferred_batch_size: 8", "preserve_ordering: true"),
            ["sequence_batching.oldest.preferred_batch_size is [] (config.pbtxt: [4, 8])"],
        ),
        (
            SequenceBatching(direct=DirectStrategy(minimum_slot_utilization=0.5, max_queue_delay_microseconds=3)),
            SEQUENCES.replace(
                f"oldest {{ {OLDEST} }}",
                "direct { minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 3 }",
            ),
            [f"sequence_batching.oldest is unset (config.pbtxt: {OLDEST})"],
        ),
    ],
)
def test_typed_sequences_leave_controls_and_what_they_do_not_set(
    typed: SequenceBatching, expected: str, overridden: list[str]
) -> None:
    merged = _merge(SEQUENCES, TritonConfig(sequence_batching=typed))
    assert merged.config.sequence_batching == parse_config(expected, "").sequence_batching
    assert [str(override) for override in merged.overrides] == overridden
    assert _merge("", TritonConfig(sequence_batching=SequenceBatching())).config.HasField("sequence_batching")


def test_typed_optimizations_leave_the_fields_beside_them() -> None:
    own = """optimization {
        priority: PRIORITY_MAX graph { level: 2 } eager_batching: true
        cuda { graphs: true graph_spec [{ batch_size: 2 }] } output_pinned_memory { enable: true }
        execution_accelerators { gpu_execution_accelerator [{ name: "a" }] cpu_execution_accelerator [{ name: "b" }] }
    }"""
    typed = Optimization(
        priority="PRIORITY_DEFAULT",
        graph_level=1,
        cuda_graphs=False,
        input_pinned_memory=False,
        output_pinned_memory=False,
        gpu_accelerators=(Accelerator(name="tensorrt", parameters={"precision_mode": "FP16"}),),
        cpu_accelerators=(),
    )
    expected = """optimization {
        graph { level: 1 } eager_batching: true cuda { graph_spec [{ batch_size: 2 }] }
        input_pinned_memory { enable: false } output_pinned_memory { enable: false }
        execution_accelerators { gpu_execution_accelerator [
            { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
        ] }
    }"""
    merged = _merge(own, TritonConfig(optimization=typed)).config.optimization
    assert merged == parse_config(expected, "").optimization
    assert merged.HasField("input_pinned_memory"), "else Triton sets its default, true"
    assert not _merge(own, TritonConfig(optimization=Optimization())).overrides


def test_groups_that_the_manifest_expresses_are_replaced_and_others_never_lost() -> None:
    typed = TritonConfig(instance_groups=(InstanceGroup(kind="CPU"),))
    merged = _merge("instance_group [{count: 3 kind: KIND_GPU gpus: [0]}, {count: 4}]", typed)
    assert [(group.kind, group.count, list(group.gpus)) for group in merged.config.instance_group] == [(2, 1, [])]
    assert "instance_group[1] is unset (config.pbtxt: count: 4)" in map(str, merged.overrides)
    with pytest.raises(Failure) as raised:
        _merge(GROUPS, typed)
    assert raised.value.reason == Reason.CONFIG_CONFLICT
    for part in ("s3://b/m", "2 groups with host_policy, profile, rate_limiter", "instanceGroups has 1", "Write 2"):
        assert part in raised.value.message


BATCHING = TritonConfig(dynamic_batching=DynamicBatching())
ENSEMBLE = "ensemble_scheduling { step [{ model_name: 'a' }] }"
CLASHES = [
    ("sequence_batching {}", BATCHING, "", ("dynamicBatching is set", "config.pbtxt has sequence_batching", "Remove")),
    (ENSEMBLE, BATCHING, "", ("dynamicBatching is set", "config.pbtxt has ensemble_scheduling")),
    (ENSEMBLE, TritonConfig(instance_groups=(InstanceGroup(),)), "", ("instanceGroups", "ensemble_scheduling")),
    (ENSEMBLE, TritonConfig(optimization=Optimization()), "", ("optimization is set", "ensemble_scheduling")),
    (
        "dynamic_batching {}",
        TritonConfig(sequence_batching=SequenceBatching()),
        "",
        ("sequenceBatching is set", "config.pbtxt has dynamic_batching", "Remove sequenceBatching"),
    ),
    (ENSEMBLE, TritonConfig(sequence_batching=SequenceBatching()), "", ("sequenceBatching is", "ensemble_scheduling")),
    (
        "",
        TritonConfig(sequence_batching=SequenceBatching(), dynamic_batching=DynamicBatching()),
        "",
        ("triton.dynamicBatching and triton.sequenceBatching are set", "Remove one of them"),
    ),
    (
        "max_batch_size: 4",
        TritonConfig(sequence_batching=SequenceBatching(oldest=OldestStrategy(preferred_batch_size=(2, 8)))),
        "",
        ("oldest.preferredBatchSize has 8", "config.pbtxt has max_batch_size 4", "Set maxBatchSize to at least 8"),
    ),
    (
        "",
        TritonConfig(
            max_batch_size=2, sequence_batching=SequenceBatching(oldest=OldestStrategy(preferred_batch_size=(8,)))
        ),
        "",
        ("oldest.preferredBatchSize has 8", "maxBatchSize is 2", "or lower preferredBatchSize"),
    ),
    (
        "",
        TritonConfig(sequence_batching=SequenceBatching(), text="response_cache { enable: true }"),
        "",
        ("config.pbtxt has response_cache, and the InferenceService sets sequence_batching", "Remove response_cache"),
    ),
    (
        "",
        TritonConfig(sequence_batching=SequenceBatching(), response_cache=True),
        "",
        ("responseCache is set, and the InferenceService sets sequence_batching", "Remove responseCache"),
    ),
    (
        "",
        TritonConfig(optimization=Optimization(priority="PRIORITY_MAX")),
        "onnxruntime",
        ("optimization.priority (of tensorrt) is set", "format onnx, onnxruntime, ignores it", "Remove it from"),
    ),
    (ENSEMBLE, TritonConfig(), "onnxruntime", ("modelFormat.name is onnx", "ensemble_scheduling", "triton")),
    (
        "sequence_batching { oldest { preferred_batch_size: [4, 8] } }",
        TritonConfig(max_batch_size=6),
        "",
        ("maxBatchSize is 6", "preferred_batch_size of sequence_batching in config.pbtxt has 8"),
    ),
    (PRIORITIES, TritonConfig(max_batch_size=4), "", ("maxBatchSize is 4", "preferred_batch_size", "has 8")),
    (PRIORITIES, TritonConfig(max_batch_size=0), "", ("maxBatchSize is 0", "preferred_batch_size")),
    (
        "max_batch_size: 4",
        TritonConfig(dynamic_batching=DynamicBatching(preferred_batch_size=(2, 8))),
        "",
        ("preferredBatchSize has 8", "max_batch_size in config.pbtxt is 4"),
    ),
    (
        PRIORITIES,
        TritonConfig(dynamic_batching=DynamicBatching(preserve_ordering=True)),
        "",
        ("preserveOrdering is true", "priority_levels: 2", "Remove preserveOrdering"),
    ),
    (
        PRIORITIES.replace("priority_levels: 2", "priority_levels: 1"),
        TritonConfig(dynamic_batching=DynamicBatching(preserve_ordering=True)),
        "",
        ("timeout_action: DELAY",),
    ),
    (
        "dynamic_batching { preserve_ordering: true }",
        TritonConfig(dynamic_batching=DynamicBatching(priorities=Priorities(levels=2, default_level=1))),
        "",
        ("makes priority_levels: 2", "config.pbtxt orders the responses", "remove priorities"),
    ),
    (
        "",
        TritonConfig(
            dynamic_batching=DynamicBatching(
                preserve_ordering=True,
                queue_policy=QueuePolicy(timeout_action="DELAY", default_timeout_microseconds=5),
            )
        ),
        "",
        ("makes timeout_action: DELAY", "preserveOrdering orders the responses", "timeoutAction Delay"),
    ),
    (
        "sequence_batching {}",
        TritonConfig(response_cache=True),
        "",
        ("triton.responseCache is set", "config.pbtxt has sequence_batching", "Remove responseCache from"),
    ),
    (
        "model_transaction_policy { decoupled: true }",
        TritonConfig(response_cache=True),
        "",
        ("responseCache is set", "decoupled: true", "any number of responses", "Remove responseCache from"),
    ),
    (
        "model_transaction_policy { decoupled: true } response_cache { enable: true }",
        TritonConfig(),
        "",
        (
            "config.pbtxt has response_cache, and config.pbtxt has model_transaction_policy",
            "Remove response_cache from config.pbtxt",
        ),
    ),
    (
        "sequence_batching {}",
        TritonConfig(text="response_cache { enable: true }"),
        "",
        ("config.pbtxt has response_cache, and config.pbtxt has sequence_batching", "Remove response_cache from"),
    ),
]


@pytest.mark.parametrize(("own", "typed", "backend", "parts"), CLASHES)
def test_a_clash_names_both_sides_and_the_remedy(
    own: str, typed: TritonConfig, backend: str, parts: tuple[str, ...]
) -> None:
    with pytest.raises(Failure) as raised:
        _merge(own, typed, "onnx" if backend else "triton", backend)
    assert raised.value.reason == Reason.CONFIG_CONFLICT
    for part in ("s3://b/m", *parts):
        assert part in raised.value.message


@pytest.mark.parametrize(
    ("own", "typed"),
    [
        ("sequence_batching {}", TritonConfig(max_batch_size=8)),
        (
            "sequence_batching { oldest { preferred_batch_size: [8] } }",
            TritonConfig(max_batch_size=2, sequence_batching=SequenceBatching(direct=DirectStrategy())),
        ),
        (
            "sequence_batching { oldest { preferred_batch_size: [8] } }",
            TritonConfig(
                max_batch_size=2, sequence_batching=SequenceBatching(oldest=OldestStrategy(preferred_batch_size=(2,)))
            ),
        ),
        ("sequence_batching {}", TritonConfig(instance_groups=(InstanceGroup(count=2),))),
        (PRIORITIES, TritonConfig(max_batch_size=8)),
        ("dynamic_batching {}", TritonConfig(max_batch_size=0)),
        (
            "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
            TritonConfig(dynamic_batching=DynamicBatching(preserve_ordering=True)),
        ),
        (PRIORITIES, TritonConfig(max_batch_size=4, dynamic_batching=DynamicBatching(preferred_batch_size=(4,)))),
        (PRIORITIES, TritonConfig(dynamic_batching=DynamicBatching(preserve_ordering=False))),
    ],
)
def test_settings_that_fit_together_are_no_clash(own: str, typed: TritonConfig) -> None:
    assert _merge(own, typed).config.WhichOneof("scheduling_choice")


@pytest.mark.parametrize(
    ("own", "typed", "overrides"),
    [
        ('platform: "onnxruntime_onnx"', TritonConfig(), []),
        ('backend: "openvino"', TritonConfig(), ['backend is "onnxruntime" (config.pbtxt: "openvino")']),
        ("max_batch_size: 16", TritonConfig(max_batch_size=0), ["max_batch_size is 0 (config.pbtxt: 16)"]),
        ("max_batch_size: 16", TritonConfig(max_batch_size=16), []),
        (
            "version_policy { specific { versions: [1, 2] } }",
            TritonConfig(version_policy=VersionPolicy(all=True)),
            ["version_policy is all { } (config.pbtxt: specific { versions: 1 versions: 2 })"],
        ),
    ],
)
def test_fields_that_the_manifest_overrides_are_listed(own: str, typed: TritonConfig, overrides: list[str]) -> None:
    assert [str(override) for override in _merge(own, typed, "onnx", "onnxruntime").overrides] == overrides


def test_another_name_in_the_file_is_kept_for_the_user() -> None:
    assert _merge('name: "zoo"', TritonConfig()).file_name == "zoo"
    assert not _merge('name: "m"', TritonConfig()).file_name


def test_a_field_that_a_merge_drops_is_found_whatever_its_type() -> None:
    file, used = ModelConfig(), ModelConfig()
    text_format.Parse('parameters { key: "k" value { string_value: "v" } } metric_tags { key: "t" value: "u" }', file)
    text_format.Parse("optimization { graph { level: 2 } } response_cache { enable: true }", file)
    fields = {override.field for override in compare(file, used)}
    assert fields == {"optimization", "parameters['k']", "metric_tags['t']", "response_cache"}


@pytest.mark.parametrize("folder", ["", "1/"])
def test_a_library_that_triton_would_run_is_no_part_of_a_model_that_is_data(folder: str) -> None:
    paths = [PurePosixPath(f"{folder}model.onnx"), PurePosixPath(f"{folder}batchstrategy.so")]
    with pytest.raises(Failure, match=r"Triton would run .*batchstrategy\.so"):
        plan_layout("onnx", paths, "s3://b/m")


FILE = """
    max_batch_size: 8
    dynamic_batching { max_queue_delay_microseconds: 100 preferred_batch_size: [2, 4] }
    parameters { key: "a" value { string_value: "1" } }
    parameters { key: "b" value { string_value: "2" } }
    input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
    version_policy { latest { num_versions: 2 } }
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("response_cache { enable: true }", "response_cache { enable: true }"),
        ("max_batch_size: 4", "max_batch_size: 4"),
        (
            "dynamic_batching { preferred_batch_size: [8] }",
            "dynamic_batching { max_queue_delay_microseconds: 100 preferred_batch_size: [8] }",
        ),
        ("sequence_batching { oldest { } }", "sequence_batching { oldest { } }"),
        ("version_policy { specific { versions: [3] } }", "version_policy { specific { versions: [3] } }"),
        (
            "parameters { key: 'b' value { string_value: '3' } }",
            "parameters { key: 'a' value { string_value: '1' } } parameters { key: 'b' value { string_value: '3' } }",
        ),
        (
            "input [{ name: 'y' data_type: TYPE_FP16 dims: [3] }]",
            "input [{ name: 'y' data_type: TYPE_FP16 dims: [3] }]",
        ),
    ],
)
def test_fields_in_the_syntax_of_the_file_win_over_it(text: str, expected: str) -> None:
    source = _source().model_copy(update={"format": "triton", "config": TritonConfig(text=text)})
    merged = merge_config(FILE, source, "").config
    wanted = parse_config(expected, "")
    for field, value in wanted.ListFields():
        assert getattr(merged, field.name) == value
    changed = {field.name for field, _ in wanted.ListFields()} | {"name"}
    scheduler = {"dynamic_batching"} if "sequence_batching" in changed else set()
    for field, value in parse_config(FILE, "").ListFields():
        assert field.name in changed | scheduler or getattr(merged, field.name) == value


@pytest.mark.parametrize(
    ("config", "reason", "parts"),
    [
        (TritonConfig(text="nonsense: 1"), "InvalidConfig", ["triton.config cannot be read", "1:1"]),
        (TritonConfig(text="name: 'n'"), "InvalidConfig", ["triton.config has name", "model.name"]),
        (
            TritonConfig(text="max_batch_size: 4 dynamic_batching { }", max_batch_size=8),
            "ConfigConflict",
            ["has max_batch_size (maxBatchSize), and", "Keep one of them"],
        ),
        (
            TritonConfig(
                text="sequence_batching { max_sequence_idle_microseconds: 5 } optimization { cuda { graphs: true } }",
                sequence_batching=SequenceBatching(max_sequence_idle_microseconds=6),
                optimization=Optimization(cuda_graphs=True),
            ),
            "ConfigConflict",
            ["sequence_batching.max_sequence_idle_microseconds (sequenceBatching)", "optimization.cuda.graphs (opt"],
        ),
        (
            TritonConfig(
                text="sequence_batching { direct { } }", sequence_batching=SequenceBatching(oldest=OldestStrategy())
            ),
            "ConfigConflict",
            ["sequence_batching.direct (sequenceBatching)", "Keep one of them"],
        ),
        (
            TritonConfig(
                text="sequence_batching { state [{ input_name: 'a' }] } optimization { eager_batching: true }",
                sequence_batching=SequenceBatching(oldest=OldestStrategy()),
                optimization=Optimization(graph_level=1),
            ),
            "",
            [],
        ),
        (TritonConfig(text='runtime: "lib.so"'), "InvalidConfig", ["runtime", "may run a program"]),
        (
            TritonConfig(text='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/e" } }'),
            "InvalidConfig",
            ["parameters.EXECUTION_ENV_PATH", "may run a program"],
        ),
        (TritonConfig(text="sequence_batching { }", max_batch_size=8), "", []),
    ],
)
def test_fields_in_the_syntax_of_the_file_are_checked(config: TritonConfig, reason: str, parts: list[str]) -> None:
    source = _source().model_copy(update={"config": config})
    if not reason:
        assert merge_config("", source, "onnxruntime").config.HasField("sequence_batching")
        return
    with pytest.raises(Failure) as raised:
        merge_config("", source, "onnxruntime")
    assert raised.value.reason == reason
    for part in parts:
        assert part in raised.value.message


def test_a_template_is_named_as_one() -> None:
    with pytest.raises(Failure) as raised:
        merge_config("max_batch_size: ${triton_max_batch_size}", _source(), "")
    assert "It is a template: fill in ${triton_max_batch_size} and the like." in raised.value.message
