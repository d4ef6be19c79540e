"""`kubectl conch load` against a real Triton: valid requests, the clock's pace, and the messages of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api import Warmup
from conch.cli.loadtest.client import ClientPool, Target
from conch.cli.loadtest.driver import IN_FLIGHT, Driver
from conch.cli.loadtest.options import Protocol
from conch.cli.loadtest.runner import prepare_requests
from conch.cli.loadtest.schedule import Schedule
from conch.cli.loadtest.tensors import Request, read_manifest_requests
from conch.cli.options import CommandError
from conch_contract import ModelSource
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.support.ports import free_port

# One instance, 0.1 s a request. It takes two numbers, though its metadata allows any number; -1 makes it raise.
PAIR = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

    def answer(self, x):
        first, second = x.as_numpy()
        time.sleep(float(first))
        if second == -1:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("less than nothing"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())])
"""
# A model that counts each sequence's requests, of texts; without START it answers with an error.
SEQUENCES = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if pb_utils.get_input_tensor_by_name(request, "START").as_numpy().item() != 1:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("not begun"))
        length = len(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().item())
        return pb_utils.InferenceResponse([pb_utils.Tensor("length", np.array([length], dtype=np.int32))])
"""
SEQUENCES_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "length" data_type: TYPE_INT32 dims: [ 1 ] } ]
sequence_batching {
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] }
  ]
}
instance_group [ { kind: KIND_CPU } ]
"""
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, store: Store, magika_onnx: Path) -> Iterator[Pod]:
    """A pod with three models: magika, one that answers slowly, and one that takes sequences only."""
    files: dict[str, bytes | Path] = {
        "load-magika/model.onnx": magika_onnx,
        "load-pair/model.py": PAIR.encode(),
        "load-sequences/config.pbtxt": SEQUENCES_CONFIG.encode(),
        "load-sequences/1/model.py": SEQUENCES.encode(),
    }
    store.put("models", files)
    pod = Pod(tmp_path_factory.mktemp("load") / "conch")
    pod.write_secret(store.secret)
    pod.write_manifest(
        ModelSource(name="magika", format="onnx", storage_uri="s3://models/load-magika"),
        ModelSource(name="pair", format="python", storage_uri="s3://models/load-pair"),
        ModelSource(name="sequences", format="triton", storage_uri="s3://models/load-sequences"),
    )
    pod.start()
    pod.until_ready()
    yield pod
    pod.stop()


def target(pod: Pod, protocol: Protocol, model: str) -> Target:
    port = pod.http if protocol == "http" else pod.grpc
    return Target(protocol, f"127.0.0.1:{port}", model, seconds=30)


def numbers(first: float, second: float) -> list[Request]:
    """The request of a warm-up, in the manifest's words."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [first, second]}
    return read_manifest_requests(Warmup.model_validate({"requests": [{"name": "two numbers", "inputs": [tensor]}]}))


def count_of(pod: Pod, model: str) -> int:
    return int(pod.statistics(model)["inference_stats"]["success"]["count"])


async def drive(target: Target, written_requests: list[Request], schedule: Schedule, concurrency: int = 512) -> Driver:
    requests, sequences = await prepare_requests(target, written_requests)
    async with ClientPool(target, requests, sequences=sequences) as pool:
        driver = Driver(pool.send, concurrency)
        await driver.run(schedule.dues(), asyncio.Event())
    return driver


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["magika", "sequences"])
async def test_requests_made_from_the_metadata_are_answered(protocol: Protocol, model: str, serving: Pod) -> None:
    before = count_of(serving, model)
    driver = await drive(target(serving, protocol, model), [], Schedule(5, 25, 2))
    assert [outcome.reason for outcome in driver.outcomes if outcome.verdict != "answered"] == []
    assert len(driver.outcomes) == driver.scheduled == 30
    assert sorted(outcome.due for outcome in driver.outcomes) == list(Schedule(5, 25, 2).dues())
    # Each was sent once, and each kind of them once before. Triton counts a moment after it has answered.
    until(lambda: count_of(serving, model) == before + 30 + 8, "Triton has counted as many", serving.triton)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_slow_server_does_not_slow_the_requests(protocol: Protocol, serving: Pod) -> None:
    # 20 requests within half a second, to one instance that takes 0.1 s for each: the last waits for all before it.
    driver = await drive(target(serving, protocol, "pair"), numbers(0.1, 1), Schedule(40, 40, 0.5))
    assert [outcome.reason for outcome in driver.outcomes if outcome.verdict != "answered"] == []
    assert max(outcome.latency for outcome in driver.outcomes) > 20 * 0.1 - 0.5


async def test_requests_that_cannot_start_in_time_are_counted(serving: Pod) -> None:
    # One at a time, 0.5 s each: two or three begin in time, however slow this machine is.
    driver = await drive(target(serving, "http", "pair"), numbers(0.5, 1), Schedule(20, 20, 1), concurrency=1)
    late = [outcome for outcome in driver.outcomes if outcome.verdict == "late"]
    assert {outcome.reason for outcome in late} == {IN_FLIGHT}
    assert 1 <= len(driver.outcomes) - len(late) <= 5
    assert len(driver.outcomes) == driver.scheduled == 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_failure_is_counted_in_tritons_words(protocol: Protocol, serving: Pod) -> None:
    requests, sequences = await prepare_requests(target(serving, protocol, "pair"), numbers(0, 1))
    async with ClientPool(target(serving, protocol, "pair"), requests + numbers(0, -1), sequences=sequences) as pool:
        driver = Driver(pool.send, 512)
        await driver.run(Schedule(20, 20, 1).dues(), asyncio.Event())
    failed = [outcome.reason for outcome in driver.outcomes if outcome.verdict == "failed"]
    assert (len(failed), len(driver.outcomes)) == (10, 20)
    assert all("less than nothing" in words for words in failed), failed[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_server_that_is_gone_fails_each_request(protocol: Protocol) -> None:
    absent = Target(protocol, f"127.0.0.1:{free_port()}", "pair", seconds=5)
    async with ClientPool(absent, numbers(0, 1), sequences=False) as pool:
        driver = Driver(pool.send, 512)
        await driver.run(Schedule(20, 20, 0.5).dues(), asyncio.Event())
    assert [outcome.verdict for outcome in driver.outcomes] == ["failed"] * 10
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:\d+ does not describe the model pair: .*--url"):
        await prepare_requests(absent, [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_model_that_refuses_the_made_request_is_reported_with_the_remedy(
    protocol: Protocol, serving: Pod
) -> None:
    with pytest.raises(CommandError) as refused:
        await prepare_requests(target(serving, protocol, "pair"), [])
    message = refused.value.message
    assert message.startswith("pair does not answer the request generated from the model's metadata: ")
    assert "dimensions open, for which 1 was used: x [-1]" in message
    assert "spec.predictor.warmup.requests" in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_model_that_is_missing_is_reported(protocol: Protocol, serving: Pod) -> None:
    with pytest.raises(CommandError, match=r"does not describe the model nothing: .*unknown model"):
        await prepare_requests(target(serving, protocol, "nothing"), [])
