"""A real Triton's counters: read in the background, added up over restarts, and evaluated."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest

from conch.api.analysis import Gate
from conch.api.kinds import ServiceKey
from conch.decide.gates import evaluate
from conch.observe import Pod
from conch.observe.measured import History, Measured
from conch.signals.counters import Counters
from tests.serving.slow import SlowTriton
from tests.support.ports import free_port
from tests.support.wait import DEADLINE

Pair = tuple[SlowTriton, SlowTriton]
KEY = ServiceKey("demo", "m")
MODELS = {"m-new": "m"}


def pod_of(triton: SlowTriton) -> Pod:
    return Pod(f"pod-{triton.address}", f"uid-{triton.address}", "m-new", "", triton.address, True, False, {})  # noqa: FBT003


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    port = free_port()
    pair = tuple(SlowTriton(tmp_path_factory.mktemp("triton"), f"127.0.0.{number}", port) for number in (1, 2))
    yield pair[0], pair[1]
    for triton in pair:
        triton.process.kill()


class Reader:
    """A reader of the counters, as a reconcile is."""

    def __init__(self, port: int) -> None:
        self.woken = asyncio.Event()
        self.counters = Counters(lambda _: self.woken.set(), port=port, period=0.2)
        self.pods: tuple[Pod, ...] = ()

    @property
    def histories(self) -> Mapping[str, History]:
        return self.counters.request(KEY, self.pods, MODELS)

    @property
    def history(self) -> History:
        return self.histories.get("m-new", History())

    async def until(self, condition: Callable[[History], object], what: str, seconds: float = DEADLINE) -> History:
        """Look when there is news, and now and then, until a history is as expected."""
        deadline = time.monotonic() + seconds
        while not condition(self.history):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; last seen: {self.history}"
            self.woken.clear()
            with contextlib.suppress(TimeoutError):  # a reading without a change sets no event
                await asyncio.wait_for(self.woken.wait(), 0.5)
        return self.history


@pytest.fixture
async def reader(tritons: Pair) -> AsyncIterator[Reader]:
    reader = Reader(tritons[0].metrics)
    yield reader
    await reader.counters.close()


async def test_requests_failures_and_latencies_are_read(tritons: Pair, reader: Reader) -> None:
    reader.pods = (pod_of(tritons[0]),)
    history = await reader.until(lambda seen: seen.read, "the first reading")
    assert history.since(0).requests == 0
    reader.woken.clear()
    await tritons[0].send(0.05, 10)
    await tritons[0].send(-1, 3)
    await asyncio.wait_for(reader.woken.wait(), 20)
    history = await reader.until(lambda seen: seen.since(0).requests == 13, "all requests are counted")
    window = history.since(0)
    assert (window.successes, window.failures) == (10, 3)
    for percentile in (None, 50, 90, 95, 99):
        latency = window.latency_us(percentile)
        assert latency is not None, percentile
        assert latency >= 50_000


async def test_an_error_that_a_python_model_answers_is_a_success_to_triton(tritons: Pair, reader: Reader) -> None:
    # docs/analysis.md warns of it. Only what is raised, rejected or cancelled counts as a failure.
    reader.pods = (pod_of(tritons[0]),)
    await reader.until(lambda seen: seen.read, "the first reading")
    await tritons[0].send(-2, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 2, "all requests are counted")
    assert history.since(0).failures == 0


async def test_a_revision_is_the_sum_of_its_pods(tritons: Pair, reader: Reader) -> None:
    first, second = tritons
    reader.pods = (pod_of(first),)
    await reader.until(lambda seen: seen.read, "the first reading")
    await first.send(0, 4)
    await second.send(0, 50)
    await reader.until(lambda seen: seen.since(0).requests == 4, "the first pod")
    reader.pods = (pod_of(first), pod_of(second))
    before = reader.history.read
    await reader.until(lambda seen: seen.read > before + 0.4, "the second pod's first reading")
    await second.send(0, 3)
    await reader.until(lambda seen: seen.since(0).requests == 7, "what the second did before was not ours")
    reader.pods = (pod_of(second),)
    await second.send(-1, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 9, "what the first did stays")
    assert history.since(0).failures == 2


async def test_a_triton_that_restarts_is_no_data_and_then_goes_on(tritons: Pair, reader: Reader) -> None:
    triton = tritons[0]
    reader.pods = (pod_of(triton),)
    await reader.until(lambda seen: seen.read, "the first reading")
    await triton.send(0, 5)
    await reader.until(lambda seen: seen.since(0).requests == 5, "before")
    triton.process.kill()
    history = await reader.until(lambda seen: seen.error, "the loss is reported")
    assert f"does not answer at port {triton.metrics}" in history.error
    assert history.since(0).requests == 5
    await asyncio.to_thread(triton.start)
    await triton.send(0, 2)
    history = await reader.until(lambda seen: seen.since(0).requests == 7, "after")
    assert history.error == ""


async def test_a_slow_model_fails_its_gate(tritons: Pair, reader: Reader) -> None:
    gate = Gate.model_validate({"latency": {"percentile": 99, "max": "100ms"}, "minSamples": 3})
    quick = Gate.model_validate({"latency": {"percentile": 99, "max": "20s"}, "minSamples": 3})
    reader.pods = (pod_of(tritons[1]),)
    await reader.until(lambda seen: seen.read, "the first reading")
    await tritons[1].send(0.15, 3)
    measured = Measured(await reader.until(lambda seen: seen.since(0).requests == 3, "all are counted"))
    assert evaluate(gate, measured, None, time.time()).verdict == "Failed"
    assert evaluate(quick, measured, None, time.time()).verdict == "Passed"


async def test_a_page_that_is_not_tritons_is_no_data(reader: Reader, tritons: Pair) -> None:
    reader.counters._port = tritons[0].http
    reader.pods = (pod_of(tritons[0]),)
    history = await reader.until(lambda seen: seen.error, "the trouble")
    assert "HTTP status 404" in history.error or "HTTP status 400" in history.error


async def test_a_revision_that_is_no_longer_requested_is_forgotten(tritons: Pair, reader: Reader) -> None:
    reader.pods = (pod_of(tritons[0]),)
    await reader.until(lambda seen: seen.read, "the first reading")
    assert reader.counters.request(KEY, reader.pods, {}) == {}
    assert reader.counters._poller._entries == {}
    assert reader.history == History()


async def test_another_revision_keeps_nothing_of_the_last(tritons: Pair, reader: Reader) -> None:
    reader.pods = (pod_of(tritons[0]),)
    await reader.until(lambda seen: seen.read, "the first reading")
    assert reader.counters.request(KEY, (), {"m-newer": "m"}) == {}
