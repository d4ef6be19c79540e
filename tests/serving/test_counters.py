"""A real Triton's counters: read in the background, added up over restarts, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from conch.api.analysis import Gate
from conch.api.kinds import ServiceKey
from conch.decide.gates import judge
from conch.observe import Pod
from conch.observe.measured import History, Measured
from conch.signals.counters import Counters
from conch.triton import server_command
from tests.serving import tools
from tests.serving.processes import Process, free_port, until

KEY = ServiceKey("demo", "m")
MODELS = {"m-new": "m"}

# Asked with x seconds it takes so long; asked with -1 it raises, with -2 it answers an error.
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

    def answer(self, x):
        seconds = float(x.as_numpy()[0])
        if seconds == -1:
            raise ValueError("less than nothing")
        if seconds == -2:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("less than nothing"))
        time.sleep(seconds)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())])
"""


class Triton:
    """Triton with one model, on an address of its own and the metrics port that all have."""

    def __init__(self, root: Path, address: str, metrics: int) -> None:
        self.root, self.address, self.metrics = root, address, metrics
        self.http = free_port()
        (root / "models" / "m" / "1").mkdir(parents=True)
        (root / "models" / "m" / "1" / "model.py").write_text(MODEL)
        (root / "models" / "m" / "config.pbtxt").write_text('backend: "python"\n')
        (root / "backends").mkdir()
        (root / "backends" / "python").symlink_to(tools.triton().server / "backends" / "python")
        self.process = self.start()

    @property
    def pod(self) -> Pod:
        return Pod(f"pod-{self.address}", f"uid-{self.address}", "m-new", "", self.address, True, False, {})  # noqa: FBT003

    def start(self) -> Process:
        tree = tools.triton()
        command = [
            "tritonserver",
            f"--model-repository={self.root / 'models'}",
            f"--backend-directory={self.root / 'backends'}",
            f"--http-address={self.address}",
            f"--metrics-address={self.address}",
            f"--http-port={self.http}",
            f"--metrics-port={self.metrics}",
            "--allow-grpc=false",
            *metrics_flags(),
        ]
        environment = {"PATH": tree.path, "HOME": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = Process(command, self.root / "triton.log", environment)
        until(self.is_ready, "Triton is ready", 60, self.process)
        return self.process

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.http}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async def ask(self, seconds: float, times: int = 1) -> None:
        """Send requests one after another, whatever becomes of them."""
        for _ in range(times):
            await asyncio.to_thread(self._ask, seconds)

    def _ask(self, seconds: float) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [seconds]}
        body = json.dumps({"inputs": [tensor]}).encode()
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.http}/v2/models/m/infer", body, timeout=20):
                return
        except urllib.error.HTTPError:
            if seconds >= 0:
                raise


def metrics_flags() -> list[str]:
    """What the operator tells Triton about metrics, but for the port."""
    flags = shlex.split(server_command(())[2])
    return [flag for flag in flags if flag.startswith("--metrics-config")]


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Triton, Triton]]:
    port = free_port()
    pair = tuple(Triton(tmp_path_factory.mktemp("triton"), f"127.0.0.{number}", port) for number in (1, 2))
    yield pair[0], pair[1]
    for triton in pair:
        triton.process.kill()


class Reader:
    """Somebody who asks for the counters, as a reconcile does."""

    def __init__(self, port: int) -> None:
        self.woken = asyncio.Event()
        self.counters = Counters(lambda _: self.woken.set(), port=port, period=0.2)
        self.pods: tuple[Pod, ...] = ()

    @property
    def told(self) -> Mapping[str, History]:
        return self.counters.ask(KEY, self.pods, MODELS)

    @property
    def history(self) -> History:
        return self.told.get("m-new", History())

    async def until(self, condition: Callable[[History], object], what: str, seconds: float = 20) -> History:
        """Look when there is news, and now and then, until a history is as expected."""
        deadline = time.monotonic() + seconds
        while not condition(self.history):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; last seen: {self.history}"
            self.woken.clear()
            with contextlib.suppress(TimeoutError):  # a reading without news wakes nobody
                await asyncio.wait_for(self.woken.wait(), 0.5)
        return self.history


@pytest.fixture
async def reader(tritons: tuple[Triton, Triton]) -> AsyncIterator[Reader]:
    reader = Reader(tritons[0].metrics)
    yield reader
    await reader.counters.close()


async def test_requests_failures_and_latencies_are_read(tritons: tuple[Triton, Triton], reader: Reader) -> None:
    reader.pods = (tritons[0].pod,)
    history = await reader.until(lambda seen: seen.read, "the first reading")
    assert history.since(0).requests == 0
    reader.woken.clear()
    await tritons[0].ask(0.05, 10)
    await tritons[0].ask(-1, 3)
    await asyncio.wait_for(reader.woken.wait(), 20)
    history = await reader.until(lambda seen: seen.since(0).requests == 13, "all requests are counted")
    window = history.since(0)
    assert (window.successes, window.failures) == (10, 3)
    for percentile in (None, 50, 90, 95, 99):
        latency = window.latency_us(percentile)
        assert latency is not None, percentile
        assert latency >= 50_000


async def test_an_error_that_a_python_model_answers_is_a_success_to_triton(
    tritons: tuple[Triton, Triton], reader: Reader
) -> None:
    # docs/analysis.md warns of it. Only what is raised, rejected or cancelled counts as a failure.
    reader.pods = (tritons[0].pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    await tritons[0].ask(-2, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 2, "all requests are counted")
    assert history.since(0).failures == 0


async def test_a_revision_is_the_sum_of_its_pods(tritons: tuple[Triton, Triton], reader: Reader) -> None:
    first, second = tritons
    reader.pods = (first.pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    await first.ask(0, 4)
    await second.ask(0, 50)
    await reader.until(lambda seen: seen.since(0).requests == 4, "the first pod")
    reader.pods = (first.pod, second.pod)
    before = reader.history.read
    await reader.until(lambda seen: seen.read > before + 0.4, "the second pod's first reading")
    await second.ask(0, 3)
    await reader.until(lambda seen: seen.since(0).requests == 7, "what the second did before was not ours")
    reader.pods = (second.pod,)
    await second.ask(-1, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 9, "what the first did stays")
    assert history.since(0).failures == 2


async def test_a_triton_that_restarts_is_no_data_and_then_goes_on(
    tritons: tuple[Triton, Triton], reader: Reader
) -> None:
    triton = tritons[0]
    reader.pods = (triton.pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    await triton.ask(0, 5)
    await reader.until(lambda seen: seen.since(0).requests == 5, "before")
    triton.process.kill()
    history = await reader.until(lambda seen: seen.trouble, "the loss is told")
    assert f"does not answer at port {triton.metrics}" in history.trouble
    assert history.since(0).requests == 5
    await asyncio.to_thread(triton.start)
    await triton.ask(0, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 7, "after")
    assert history.trouble == ""


async def test_a_slow_model_fails_its_gate(tritons: tuple[Triton, Triton], reader: Reader) -> None:
    gate = Gate.model_validate({"latency": {"percentile": 99, "max": "100ms"}, "minSamples": 3})
    quick = Gate.model_validate({"latency": {"percentile": 99, "max": "20s"}, "minSamples": 3})
    reader.pods = (tritons[1].pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    await tritons[1].ask(0.15, 3)
    measured = Measured(await reader.until(lambda seen: seen.since(0).requests == 3, "all are counted"))
    assert judge(gate, measured, None, time.time()).verdict == "Failed"
    assert judge(quick, measured, None, time.time()).verdict == "Passed"


async def test_a_page_that_is_not_tritons_is_no_data(reader: Reader, tritons: tuple[Triton, Triton]) -> None:
    reader.counters._port = tritons[0].http
    reader.pods = (tritons[0].pod,)
    history = await reader.until(lambda seen: seen.trouble, "the trouble")
    assert "HTTP status 404" in history.trouble or "HTTP status 400" in history.trouble


async def test_who_is_not_asked_for_is_forgotten(tritons: tuple[Triton, Triton], reader: Reader) -> None:
    reader.pods = (tritons[0].pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    task = reader.counters._watches[KEY].task
    assert task is not None
    assert reader.counters.ask(KEY, reader.pods, {}) == {}
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert reader.counters._watches == {}
    assert reader.history == History()


async def test_another_revision_keeps_nothing_of_the_last(tritons: tuple[Triton, Triton], reader: Reader) -> None:
    reader.pods = (tritons[0].pod,)
    await reader.until(lambda seen: seen.read, "the first reading")
    assert reader.counters.ask(KEY, (), {"m-newer": "m"}) == {}
