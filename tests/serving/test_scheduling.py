"""Typed fields of a real Triton's scheduling: the rate limiter, sequences and optimizations."""

from __future__ import annotations

import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

from conch.triton import build_server_command
from conch_contract import (
    Accelerator,
    DirectStrategy,
    InstanceGroup,
    ModelSource,
    OldestStrategy,
    Optimization,
    RateLimiter,
    RateLimiterResource,
    SequenceBatching,
    TritonConfig,
)
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_config import ONE_ROW, SLOW, TENSORS
from tests.support.examples import MODELS

[FLAG] = [word for word in build_server_command((), rate_limiter=True)[2].split() if "rate-limit" in word]
SECONDS = 0.4


def put(store: Store, pod: Pod, folder: str, files: dict[str, bytes]) -> str:
    """Upload the files of a model; return its URI."""
    store.put("models", {f"{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    return f"s3://models/{folder}"


def read_origins(pod: Pod, name: str) -> dict[str, tuple[str, str]]:
    """Return value and origin by field in the report of a model."""
    return {each.field: (each.value, each.origin) for each in pod.until_reported(name).config}


def find_warning(pod: Pod, reason: str) -> str:
    """Return the message of a warning; empty: there is none."""
    return next((each.message for each in pod.until_reported().warnings if each.reason == reason), "")


def limited(store: Store, pod: Pod, name: str, limiter: RateLimiter, instances: int = 1) -> ModelSource:
    """Upload a model whose requests take a while; return its source."""
    uri = put(store, pod, "slow", {"model.py": SLOW})
    group = InstanceGroup(kind="CPU", count=instances, rate_limiter=limiter)
    config = TritonConfig(instance_groups=(group,), parameters={"SECONDS": str(SECONDS)})
    return ModelSource(name=name, format="python", storage_uri=uri, config=config)


def measure(pod: Pod, *models: str) -> float:
    """Return the seconds in which one request to each of the models is answered, sent together."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(models)) as threads:
        assert all(answer == {"y": [1.5, 2.0]} for answer in threads.map(lambda name: pod.infer(name, ONE_ROW), models))
    return time.monotonic() - began


def restart(pod: Pod, *flags: str) -> None:
    """Start another Triton, with other flags, in the place of the present one."""
    assert pod.triton
    pod.triton.kill()
    until(lambda: not pod.ready, "the pod has no Triton", pod.agent)
    pod.start_triton(*flags)


def test_instances_that_share_a_resource_run_one_after_another(store: Store, pod: Pod) -> None:
    one = RateLimiter(resources=(RateLimiterResource(name="slots", count=1, is_global=True),), priority=2)
    sources = [limited(store, pod, name, one) for name in ("a", "b")]
    pod.write_manifest(*sources)
    pod.start_agent()
    pod.start_triton(FLAG)
    pod.until_ready()
    group = pod.triton_config("a")["instance_group"][0]
    assert group["rate_limiter"] == {"resources": [{"name": "slots", "global": True, "count": 1}], "priority": 2}
    assert read_origins(pod, "a")["instance_group[0]"][1] == "Spec"
    assert measure(pod, "a", "b") >= 2 * SECONDS, "there are as many units as one instance takes"
    pod.write_manifest(sources[0], sources[1].model_copy(update={"name": "c"}))
    pod.until_reported("c")
    assert measure(pod, "a", "c") >= 2 * SECONDS, "also of a model that is loaded later"


def test_the_units_of_a_resource_are_a_flag_and_too_few_are_refused_with_a_remedy(store: Store, pod: Pod) -> None:
    one = RateLimiter(resources=(RateLimiterResource(name="slots", count=1, is_global=True),))
    pod.write_manifest(*(limited(store, pod, name, one) for name in ("a", "b")))
    pod.start_agent()
    pod.start_triton(FLAG, "--rate-limit-resource=slots:2")
    pod.until_ready()
    until(lambda: measure(pod, "a", "b") < 2 * SECONDS, "both run at the same time")
    restart(pod, FLAG, "--rate-limit-resource=other:2")
    message = pod.until_reason("LoadFailed", "a").message
    for part in ("Set --rate-limit-resource=slots:1", "spec.predictor.triton.args", "Triton's words:"):
        assert part in message


def test_without_its_flag_triton_ignores_the_rate_limiter(store: Store, pod: Pod) -> None:
    """The reason why Conch sets the flag, and refuses one that turns the rate limiter off."""
    one = RateLimiter(resources=(RateLimiterResource(name="slots", count=1, is_global=True),))
    pod.write_manifest(*(limited(store, pod, name, one) for name in ("a", "b")))
    pod.start_agent()
    pod.start_triton(FLAG, "--rate-limit=off")
    pod.until_ready()
    until(lambda: measure(pod, "a", "b") < 2 * SECONDS, "both run at the same time")


def sequences(store: Store, pod: Pod, batching: SequenceBatching) -> None:
    """Start a model with state, whose config.pbtxt has the strategy oldest."""
    folder = MODELS / "running_sum"
    files = {"config.pbtxt": (folder / "config.pbtxt").read_bytes(), "1/model.py": (folder / "model.py").read_bytes()}
    uri = put(store, pod, "running-sum", files)
    config = TritonConfig(sequence_batching=batching)
    pod.write_manifest(ModelSource(name="m", format="triton", storage_uri=uri, config=config))
    pod.start()
    pod.until_ready()


def add(pod: Pod, number: float, sequence: int = 1, *, start: bool = False) -> float:
    """Send the next number of a sequence; return the sum."""
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [number]}]
    answer = pod.infer("m", inputs, parameters={"sequence_id": sequence, "sequence_start": start})
    return float(answer["sum"][0])


def test_a_sequence_ends_after_its_idle_time_and_the_file_keeps_its_strategy(store: Store, pod: Pod) -> None:
    sequences(store, pod, SequenceBatching(max_sequence_idle_microseconds=500_000))
    served = pod.triton_config("m")["sequence_batching"]
    assert int(served["max_sequence_idle_microseconds"]) == 500_000
    assert served["oldest"]["max_candidate_sequences"] == 100
    assert read_origins(pod, "m")["sequence_batching.max_sequence_idle_microseconds"] == ("500000", "Spec")
    assert read_origins(pod, "m")["sequence_batching.oldest.max_candidate_sequences"] == ("100", "File")
    assert (add(pod, 1, start=True), add(pod, 2)) == (1, 3)

    def has_ended() -> bool:
        time.sleep(1)
        try:
            add(pod, 1)
        except urllib.error.HTTPError as error:
            return "START" in error.read().decode()
        return False

    until(has_ended, "Triton has ended the sequence")


def test_a_strategy_replaces_that_of_the_file_and_delays_its_batches(store: Store, pod: Pod) -> None:
    direct = DirectStrategy(max_queue_delay_microseconds=1_000_000, minimum_slot_utilization=0.3)
    sequences(store, pod, SequenceBatching(direct=direct))
    assert "oldest" not in pod.triton_config("m")["sequence_batching"]
    assert read_origins(pod, "m")["sequence_batching.direct.minimum_slot_utilization"] == ("0.3", "Spec")
    assert "sequence_batching.oldest is unset" in find_warning(pod, "ConfigOverridden")
    began = time.monotonic()
    add(pod, 1, start=True)
    assert time.monotonic() - began >= 1, "one of eight slots is less than 30 %"


def test_a_limit_of_sequences_makes_others_wait(store: Store, pod: Pod) -> None:
    oldest = OldestStrategy(max_candidate_sequences=1, preferred_batch_size=(4,), preserve_ordering=True)
    sequences(store, pod, SequenceBatching(max_sequence_idle_microseconds=2_000_000, oldest=oldest))
    assert pod.triton_config("m")["sequence_batching"]["oldest"] == {
        "max_candidate_sequences": 1,
        "preferred_batch_size": [4],
        "max_queue_delay_microseconds": 0,
        "preserve_ordering": True,
    }
    add(pod, 1, sequence=1, start=True)
    began = time.monotonic()
    add(pod, 1, sequence=2, start=True)
    assert time.monotonic() - began >= 1, "until the first one has ended"


def test_sequences_over_dynamic_batching_are_refused_and_the_remedy_is_enough(store: Store, pod: Pod) -> None:
    own = b"max_batch_size: 4 dynamic_batching { }"
    uri = put(store, pod, "batches", {"config.pbtxt": own + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(sequence_batching=SequenceBatching(direct=DirectStrategy()))
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.start()
    message = pod.until_reason("ConfigConflict").message
    for part in ("sequenceBatching is set", "config.pbtxt has dynamic_batching", "Remove sequenceBatching from"):
        assert part in message
    uri = put(store, pod, "sequences", {"config.pbtxt": b"max_batch_size: 4" + TENSORS, "m.onnx": multiply(2)})
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.until_ready()
    assert "direct" in pod.triton_config("m")["sequence_batching"]
    assert "Set traffic.consistentHash" in find_warning(pod, "SequenceState")


def test_optimizations_reach_triton_and_the_backend(store: Store, pod: Pod) -> None:
    own = b"max_batch_size: 4 optimization { graph { level: 2 } cuda { busy_wait_events: true } }"
    uri = put(store, pod, "optimized", {"config.pbtxt": own + TENSORS, "m.onnx": multiply(2)})
    typed = Optimization(
        graph_level=1,
        input_pinned_memory=False,
        gpu_accelerators=(Accelerator(name="tensorrt", parameters={"precision_mode": "FP16"}),),
    )
    source = ModelSource(name="m", format="onnx", storage_uri=uri, config=TritonConfig(optimization=typed))
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    served = pod.triton_config("m")["optimization"]
    assert served["graph"] == {"level": 1}
    assert served["cuda"]["busy_wait_events"] is True, "as in the file"
    assert (served["input_pinned_memory"], served["output_pinned_memory"]) == ({"enable": False}, {"enable": True})
    assert served["execution_accelerators"]["gpu_execution_accelerator"] == [
        {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}
    ]
    values = read_origins(pod, "m")
    assert values["optimization.graph.level"] == ("1", "Spec")
    assert values["optimization.execution_accelerators.gpu_execution_accelerator[0]"][1] == "Spec"
    assert pod.infer("m", ONE_ROW) == {"y": [3.0, 4.0]}
    cpu = Optimization(cpu_accelerators=(Accelerator(name="openvino"),))
    pod.write_manifest(source.model_copy(update={"config": TritonConfig(optimization=cpu)}))
    assert "CPU execution accelerator openvino" in pod.until_reason("LoadFailed").message, "the backend reads it"


def test_an_optimization_that_the_backend_ignores_is_refused(store: Store, pod: Pod) -> None:
    uri = put(store, pod, "plain", {"config.pbtxt": b"max_batch_size: 4" + TENSORS, "m.onnx": multiply(2)})
    typed = TritonConfig(optimization=Optimization(cuda_graphs=True))
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri, config=typed))
    pod.start()
    message = pod.until_reason("ConfigConflict").message
    for part in ("triton.optimization.cuda (of tensorrt) is set", "onnxruntime, ignores it", "Remove it"):
        assert part in message
