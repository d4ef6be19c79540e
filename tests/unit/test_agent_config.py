"""The configuration that Triton gets: the user's own, what was typed over it, and the name."""

from __future__ import annotations

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.config import CONTENT, merge, to_text, wanted_versions
from conch_agent.reasons import Failure, Reason
from conch_contract import DynamicBatching, InstanceGroup, ModelSource, TritonConfig, VersionPolicy


def _source(config: TritonConfig | None = None) -> ModelSource:
    return ModelSource(name="m", format="onnx", storage_uri="s3://b/m", config=config or TritonConfig())


def test_without_anything_typed_only_the_name_the_backend_and_the_content_are_written() -> None:
    config = merge(None, _source(), "onnxruntime", "c0ffee")
    expected = ModelConfig(name="m", backend="onnxruntime")
    expected.parameters[CONTENT].string_value = "c0ffee"
    assert config == expected


def test_what_is_typed_wins_over_the_file() -> None:
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
    config = merge(own, _source(typed), "onnxruntime", "c")
    assert (config.name, config.backend, config.platform, config.max_batch_size) == ("m", "onnxruntime", "", 32)
    assert config.response_cache.enable
    assert len(config.instance_group) == 1
    group = config.instance_group[0]
    assert (group.kind, group.count, list(group.gpus)) == (1, 2, [0, 1])
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.version_policy.latest.num_versions == 2


def test_a_model_of_tritons_own_format_keeps_its_backend() -> None:
    assert merge('backend: "tensorrt"', _source(), "", "c").backend == "tensorrt"


def test_a_file_that_cannot_be_read_is_named_with_the_place() -> None:
    with pytest.raises(Failure) as raised:
        merge("max_batch_size: many", _source(), "", "c")
    assert raised.value.reason == Reason.INVALID_CONFIG
    assert "1:17" in raised.value.message


def test_the_text_is_read_again_as_it_was() -> None:
    config = merge('input [{name: "x" data_type: TYPE_FP32 dims: [-1]}]', _source(), "python", "c")
    assert merge(to_text(config), _source(), "python", "c") == config


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
    config = merge(None, _source(TritonConfig(version_policy=policy)), "", "c")
    assert wanted_versions(config, [2, 1, 3]) == wanted
