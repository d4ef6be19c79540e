"""A config.pbtxt has the same meaning in the CPU image as with NVIDIA's ONNX backend, or the load fails."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from conch_contract import ModelSource, ModelState
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.store import Store

Serve = Callable[[str, dict[str, bytes]], Pod]
X = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
PLAIN = [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]
GOOD = """
    max_batch_size: 4
    input [{name: "x" data_type: TYPE_FP32 dims: [2]}]
    output [{name: "y" data_type: TYPE_FP32 dims: [2]}]
"""


@pytest.fixture
def onnx(store: Store, pod: Pod) -> Serve:
    """Serve files, with what stands in config.pbtxt, and return the pod."""
    folder = uuid4().hex  # one of its own: what another case put there would be part of this model

    def serve(config: str, files: dict[str, bytes]) -> Pod:
        store.put("onnx", {f"{folder}/{name}": content for name, content in files.items()})
        if config:
            store.put("onnx", {f"{folder}/config.pbtxt": config.encode()})
        pod.write_secret(store.secret)
        pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"s3://onnx/{folder}"))
        pod.start()
        return pod

    return serve


@pytest.mark.parametrize(
    ("config", "files", "factor"),
    [
        ('default_model_filename: "b.onnx"', {"a.onnx": 2, "b.onnx": 3}, 3),
        ('default_model_filename: "b.onnx"', {"model.onnx": 2, "b.onnx": 3}, 3),
        ('default_model_filename: "deep/b.onnx"', {"1/model.onnx": 2, "1/deep/b.onnx": 3}, 3),
        ('default_model_filename: "deep"', {"1/model.onnx": 2, "1/deep/model.onnx": 3}, 3),
        ('cc_model_filenames { key: "8.0" value: "b.onnx" }', {"model.onnx": 2, "b.onnx": 3}, 2),
    ],
)
def test_the_file_that_the_configuration_names_is_served(
    onnx: Serve, config: str, files: dict[str, float], factor: float
) -> None:
    pod = onnx(config, {name: multiply(each) for name, each in files.items()})
    pod.until_ready()
    assert pod.infer("m", X) == {"y": [factor, 2 * factor]}


@pytest.mark.parametrize(
    "config",
    [
        "optimization { graph { level: -1 } }",
        "optimization { graph { level: 2 } }",
        'parameters { key: "execution_mode" value { string_value: "1" } }',
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
        'parameters { key: "enable_mem_arena" value { string_value: "0" } }',
        'parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0" } }',
        'parameters { key: "share_session_between_instances" value { string_value: "true" } }',
        'parameters { key: "cudnn_conv_algo_search" value { string_value: "0" } }',
    ],
)
def test_options_of_the_native_backend(onnx: Serve, config: str) -> None:
    pod = onnx(config, {"model.onnx": multiply(2)})
    pod.until_ready()
    assert pod.infer("m", X) == {"y": [2.0, 4.0]}


def test_a_request_may_leave_out_an_optional_input(onnx: Serve) -> None:
    config = """
        input [{name: "x" data_type: TYPE_FP32 dims: [2]}]
        input [{name: "factor" data_type: TYPE_FP32 dims: [1] optional: true}]
        output [{name: "y" data_type: TYPE_FP32 dims: [2]}]
    """
    pod = onnx(config, {"model.onnx": multiply(2, (2,), overridable=True)})
    pod.until_ready()
    assert pod.infer("m", PLAIN) == {"y": [2.0, 4.0]}
    factor = {"name": "factor", "datatype": "FP32", "shape": [1], "data": [5.0]}
    assert pod.infer("m", [*PLAIN, factor]) == {"y": [5.0, 10.0]}


@pytest.mark.parametrize(
    ("shape", "completed", "data"),
    [((), (0, ["1"], None), [3.0]), (("N",), (4, ["1"], []), [3.0])],
    ids=["scalar", "batch"],
)
def test_tensors_without_dimensions(
    onnx: Serve, shape: tuple[str, ...], completed: tuple[int, list[str], list[int] | None], data: list[float]
) -> None:
    pod = onnx("", {"model.onnx": multiply(2, shape)})
    pod.until_ready()
    config = pod.triton_config("m")
    batch, dims, reshape = completed
    tensor = config["input"][0]
    assert (config["max_batch_size"], [str(size) for size in tensor["dims"]]) == (batch, dims)
    assert (tensor.get("reshape") or {}).get("shape") == reshape
    sent = [{"name": "x", "datatype": "FP32", "shape": [1, 1] if batch else [1], "data": data}]
    assert pod.infer("m", sent) == {"y": [6.0]}


@pytest.mark.parametrize(
    ("config", "scheduler", "batch"),
    [
        (GOOD, False, 4),  # nothing is completed where inputs and outputs are given
        ('output [{name: "y" data_type: TYPE_FP32 dims: [2]}]', True, 4),
        ("max_batch_size: 1", False, 1),
    ],
)
def test_fields_that_the_configuration_lacks_are_completed(
    onnx: Serve, config: str, batch: int, *, scheduler: bool
) -> None:
    pod = onnx(config, {"model.onnx": multiply(2)})
    pod.until_ready()
    found = pod.triton_config("m")
    assert ("dynamic_batching" in found, found["max_batch_size"]) == (scheduler, batch)


STATE = 'state [{input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [2]}]'


@pytest.mark.parametrize(
    ("config", "shape", "part"),
    [
        ("max_batch_size: 8", (1, 2), "the first dimension of x, y is fixed"),
        (GOOD.replace('name: "x"', 'name: "z"'), ("N", 2), "names the input 'z'; the model has ['x']"),
        (GOOD.replace('name: "y"', 'name: "z"'), ("N", 2), "names the output 'z'; the model has ['y']"),
        (GOOD.replace("FP32 dims: [2]}]\n    output", "INT32 dims: [2]}]\n    output"), ("N", 2), "Write TYPE_FP32"),
        (
            GOOD.replace("dims: [2]", "dims: [3]", 1),
            ("N", 2),
            "has dims [3] after the batch's in config.pbtxt and [-1, 2]",
        ),
        (GOOD.replace("dims: [2]", "dims: [2, 1]", 1), ("N", 2), "Correct them"),
        (
            'batch_input [{kind: BATCH_ELEMENT_COUNT target_name: "b" data_type: TYPE_FP32 source_input: "x"}]',
            ("N", 2),
            "batch_input",
        ),
        (GOOD.replace("dims: [2]}", "dims: [2] allow_ragged_batch: true}", 1), ("N", 2), "allow_ragged_batch"),
        ("model_transaction_policy { decoupled: true }", ("N", 2), "decoupled"),
        (f"max_batch_size: 4 sequence_batching {{ {STATE} }}", ("N", 2), "sequence_batching.state"),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator [{name: "openvino"}] } }',
            ("N", 2),
            "openvino",
        ),
        ('parameters { key: "execution_mode" value { string_value: "2" } }', ("N", 2), "Write 0 (sequential) or 1"),
        ('parameters { key: "enable_mem_arena" value { string_value: "maybe" } }', ("N", 2), "Write 1 or 0"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
            ("N", 2),
            "Write a whole number",
        ),
    ],
)
def test_a_configuration_that_the_model_contradicts_is_refused(
    onnx: Serve, config: str, shape: tuple[int | str, ...], part: str
) -> None:
    pod = onnx(config, {"model.onnx": multiply(2, shape)})
    report = pod.until_reason("LoadFailed")
    assert report.state == ModelState.FAILED
    assert part in report.message, report.message
