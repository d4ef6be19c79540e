"""The user's config.pbtxt under the manifest: what is merged, what clashes, and what the report shows of it."""

from __future__ import annotations

import signal
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import pytest

from conch.triton.metrics import FAILURE, read_metrics
from conch_contract import (
    DynamicBatching,
    InstanceGroup,
    ModelReport,
    ModelSource,
    ModelState,
    Priorities,
    QueuePolicy,
    TritonConfig,
    Warmup,
    WarmupRequest,
)
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import X

TENSORS = b"""
    input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
"""
PRIORITIES = b"""
    name: "doubler"
    max_batch_size: 8
    dynamic_batching {
        max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 1
        default_queue_policy { max_queue_size: 3 }
    }
    instance_group [{ kind: KIND_CPU count: 1 rate_limiter { priority: 2 } }]
"""
ENSEMBLE = b"""
    platform: "ensemble"
    input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [-1] }]
    ensemble_scheduling { step [
        { model_name: "before" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "t" } },
        { model_name: "after" model_version: -1 input_map { key: "x" value: "t" } output_map { key: "y" value: "y" } }
    ] }
"""
CALLER = b"""
import triton_python_backend_utils as pb_utils

CALLEE = "scaler"


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [self.call(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

    def call(self, x):
        request = pb_utils.InferenceRequest(model_name=CALLEE, requested_output_names=["y"], inputs=[x])
        response = request.exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        return pb_utils.InferenceResponse(response.output_tensors())
"""
ECHO = b"""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        tensors = (pb_utils.get_input_tensor_by_name(request, "x") for request in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""

# It sleeps for the seconds of its parameter in each request.
SLOW = b"""
import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(1)
        return config

    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.seconds = float(parameters["SECONDS"]["string_value"])

    def execute(self, requests):
        time.sleep(self.seconds)
        tensors = (pb_utils.get_input_tensor_by_name(request, "x") for request in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""
ONE_ROW = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]


def _put(store: Store, pod: Pod, folder: str, files: dict[str, bytes]) -> str:
    store.put("models", {f"{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    return f"s3://models/{folder}"


def _warning(report: ModelReport, reason: str) -> str:
    return next((warning.message for warning in report.warnings if warning.reason == reason), "")


def test_a_typed_field_keeps_what_the_file_has_beside_it(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "priorities", {"config.pbtxt": PRIORITIES + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=1000),
        instance_groups=(InstanceGroup(count=2),),
    )
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.start()
    report = pod.until_reported()
    served = pod.triton_config("m")
    batching = served["dynamic_batching"]
    assert (int(batching["max_queue_delay_microseconds"]), int(batching["priority_levels"])) == (1000, 2)
    assert batching["default_queue_policy"]["max_queue_size"] == 3
    group = served["instance_group"][0]
    assert (group["count"], group["kind"], group["rate_limiter"]["priority"]) == (2, "KIND_CPU", 2)
    assert _warning(report, "ConfigOverridden") == (
        "The InferenceService overrides config.pbtxt: instance_group[0].count is 2 (config.pbtxt: 1); "
        "dynamic_batching.max_queue_delay_microseconds is 1000 (config.pbtxt: 100)."
    )
    assert "names the model 'doubler'; Triton serves it as 'm'" in _warning(report, "ModelRenamed")
    assert pod.agent
    pod.agent.kill()
    pod.start_agent()
    assert pod.until_reported().warnings == report.warnings


def test_each_value_that_triton_uses_is_reported_with_its_origin(store: Store, pod: Pod) -> None:
    own = PRIORITIES + b'parameters { key: "execution_mode" value { string_value: "1" } }'
    uri = _put(store, pod, "origins", {"config.pbtxt": own + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=1000),
        instance_groups=(InstanceGroup(count=2),),
        parameters={"intra_op_thread_count": "1"},
        text="optimization { graph { level: 1 } }",
    )
    plain = ModelSource(name="plain", format="onnx", storage_uri=f"{uri}/m.onnx")
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed), plain)
    pod.start()
    values = _read_origins(pod, "m")
    assert {field: each for field, each in values.items() if each[1] != "Triton"} == {
        "dynamic_batching.max_queue_delay_microseconds": ("1000", "Spec"),
        "instance_group[0].count": ("2", "Spec"),
        "optimization.graph.level": ("1", "Spec"),
        "parameters['intra_op_thread_count']": ('string_value: "1"', "Spec"),
        "max_batch_size": ("8", "File"),
        "dynamic_batching.priority_levels": ("2", "File"),
        "dynamic_batching.default_priority_level": ("1", "File"),
        "dynamic_batching.default_queue_policy.max_queue_size": ("3", "File"),
        "instance_group[0].kind": ("KIND_CPU", "File"),
        "instance_group[0].rate_limiter.priority": ("2", "File"),
        "parameters['execution_mode']": ('string_value: "1"', "File"),
        "backend": ('"onnxruntime"', "Conch"),
    }
    assert values["dynamic_batching.preferred_batch_size"] == ("[8]", "Triton"), "Triton completes it"
    completed = _read_origins(pod, "plain")
    assert completed["backend"] == ('"onnxruntime"', "Conch")
    assert {field for field, (_, origin) in completed.items() if origin == "Triton"} >= {
        "max_batch_size",
        "instance_group[0]",
        "version_policy",
        "default_model_filename",
    }
    before = pod.model().config
    assert pod.agent
    pod.agent.kill()
    pod.start_agent()
    assert pod.until_reported().config == before, "also of an agent that starts again"


def _read_origins(pod: Pod, name: str) -> dict[str, tuple[str, str]]:
    """Return value and origin by field in the first report of a ready model, after which the operator polls none."""
    return {each.field: (each.value, each.origin) for each in pod.until_reported(name).config}


@pytest.mark.parametrize(
    ("policy", "error", "is_counted"),
    [
        (QueuePolicy(max_queue_size=2), "Exceeds maximum queue size", False),
        (QueuePolicy(default_timeout_microseconds=100_000), "Request timeout expired", True),
    ],
    ids=["full", "late"],
)
def test_a_queue_refuses_requests_and_a_parameter_reaches_the_model(
    store: Store, pod: Pod, policy: QueuePolicy, error: str, *, is_counted: bool
) -> None:
    uri = _put(store, pod, "slow", {"model.py": SLOW})
    typed = TritonConfig(
        dynamic_batching=DynamicBatching(queue_policy=policy),
        instance_groups=(InstanceGroup(kind="CPU", count=3),),
        parameters={"SECONDS": "1"},
    )
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri=uri, config=typed))
    pod.start()
    pod.until_ready()

    def send(_: int) -> str:
        """Return the answer of Triton to one request, or its error."""
        try:
            return str(pod.infer("m", ONE_ROW))
        except urllib.error.HTTPError as answer:
            return answer.read().decode()

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(send, range(12)))
    served = [answer for answer in answers if "1.5" in answer]
    refused = [answer for answer in answers if error in answer]
    assert len(served) + len(refused) == 12, answers
    assert 1 <= len(served) <= 6, "three that run, and one queue of two for all instances"
    counters = read_metrics(pod.read_metrics(), "m").counters
    failures = sum(count for series, count in counters.items() if series.metric == FAILURE)
    assert failures == (len(refused) if is_counted else 0), "docs/serving-image.md: what gates see"


def test_requests_of_a_higher_priority_overtake(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "slow", {"model.py": SLOW})
    priorities = Priorities(levels=2, default_level=2)
    typed = TritonConfig(dynamic_batching=DynamicBatching(priorities=priorities), parameters={"SECONDS": "0.4"})
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri=uri, config=typed))
    pod.start()
    pod.until_ready()
    ends: list[str] = []

    def send(name: str) -> None:
        pod.infer("m", ONE_ROW, parameters={"priority": 1} if name == "urgent" else {})
        ends.append(name)

    with ThreadPoolExecutor(11) as threads:
        others = [threads.submit(send, "other") for _ in range(10)]
        until(lambda: bool(ends), "the first request is answered")
        urgent = threads.submit(send, "urgent")
        for each in (*others, urgent):
            each.result()
    assert ends.index("urgent") < 6, ends


def test_two_schedulers_are_refused_and_the_remedy_is_enough(store: Store, pod: Pod) -> None:
    own = b"max_batch_size: 4 sequence_batching { direct {} }"
    uri = _put(store, pod, "sequences", {"config.pbtxt": own + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(dynamic_batching=DynamicBatching())
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.start()
    message = pod.until_reason("ConfigConflict").message
    for part in ("dynamicBatching is set", "config.pbtxt has sequence_batching", "Remove dynamicBatching"):
        assert part in message
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri))
    pod.until_ready()
    assert "sequence_batching" in pod.triton_config("m")
    assert "Set traffic.consistentHash" in _warning(pod.until_reported(), "SequenceState")


def test_an_ensemble_without_its_steps_names_them_and_the_way_out(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "ensemble", {"config.pbtxt": ENSEMBLE})
    pod.write_manifest(ModelSource(name="m", format="triton", storage_uri=uri))
    pod.start()
    message = pod.until_reason("ModelMissing").message
    for part in ("Model 'm' calls 'after' and 'before'", "serves one model", "set modelFormat.name to repository"):
        assert part in message


def test_a_model_that_calls_another_is_served_with_a_warning(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "caller", {"model.py": CALLER})
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri=uri))
    pod.start()
    warning = _warning(pod.until_reported(), "CalleeMissing")
    for part in ("Model 'm' calls 'scaler'", "Requests that need them fail", "set modelFormat.name to repository"):
        assert part in warning


def test_a_warm_up_that_needs_another_model_names_it(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "caller", {"model.py": CALLER})
    warmup = Warmup(requests=(WarmupRequest(name="one", body={"inputs": X}),))
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri=uri, warmup=warmup))
    pod.start()
    message = pod.until_reason("WarmupFailed").message
    for part in ("calls the model 'scaler'", "modelFormat.name to repository", "Triton's words:", "is not ready"):
        assert part in message


@pytest.mark.parametrize("when", ["load", "warm-up"])
def test_a_full_shared_memory_names_the_field_to_raise(store: Store, pod: Pod, when: str) -> None:
    uri = _put(store, pod, "echo", {"model.py": ECHO})
    size = "64k" if when == "load" else "6M"  # less than Triton makes for an instance; enough for it, and no request
    large = [{"name": "x", "datatype": "FP32", "shape": [3_000_000], "data": [0] * 3_000_000}]
    warmup = Warmup(requests=(WarmupRequest(name="large", body={"inputs": large}),)) if when == "warm-up" else None
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri=uri, warmup=warmup))
    pod.start_agent()
    pod.start_triton(shm_size=size)
    reason = "LoadFailed" if when == "load" else "WarmupFailed"
    triton = pod.triton
    assert triton
    until(
        lambda: pod.model().reason == reason or not triton.running,
        f"m has the reason {reason}, or Triton ends",
        pod.agent,
    )
    if when == "warm-up" and not triton.running:  # tests/unit/test_diagnosis.py has the operator's message
        assert triton.status in {-signal.SIGBUS, -signal.SIGSEGV}
        return
    message = pod.model().message
    for part in ("spec.predictor.triton.shmSize", "Triton's words:", "--shm-size"):
        assert part in message
    assert pod.model().state == ModelState.FAILED


def test_a_field_in_the_syntax_of_the_file_reaches_triton(store: Store, pod: Pod) -> None:
    uri = _put(store, pod, "cached", {"config.pbtxt": b"max_batch_size: 4" + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(text="response_cache { enable: true }")
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.start_agent()
    pod.start_triton("--cache-config=local,size=1048576")
    pod.until_ready()
    assert pod.triton_config("m")["response_cache"] == {"enable": True}
    assert pod.triton_config("m")["max_batch_size"] == 4
    for _ in range(3):
        assert pod.infer("m", ONE_ROW) == {"y": [3.0, 4.0]}
    assert pod.statistics("m")["execution_count"] == 1, "the others came from the cache"
