"""The warm-up Job's program against a real Triton: what it leaves as termination message, and how it ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch_agent.warmup.rounds import count_connections
from conch_contract import ModelSource, Warmup, WarmupReport, WarmupRequest, revision_jobs
from tests.serving.job_run import JobRun
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support.ports import free_port
from tests.support.relay import Relay

WARMUP = Warmup(requests=(WarmupRequest(body={"inputs": X}),), round_size=10, within=1.0, timeout_seconds=30)


class Service(Relay):
    """A Service as kube-proxy makes it: each connection goes to one of the pods, by chance."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = pods
        super().__init__(pods[0].http)

    def _choose(self) -> int:
        return random.choice(self.pods).http  # noqa: S311  chance, no secret


LONG = {"within": 0.0, "round_size": 20_000}  # two rounds take seconds; of small ones, two are equally fast soon


class WarmupRun(JobRun[WarmupReport]):
    """A run of conch-warmup."""

    def __init__(self, folder: Path, port: int, source: ModelSource, *options: str, store: Store | None = None) -> None:
        super().__init__(
            revision_jobs.WARMUP, folder, source, "--host=127.0.0.1", f"--port={port}", *options, store=store
        )


@pytest.fixture
def served(store: Store, pod: Pod) -> Pod:
    """A pod that serves the model without having warmed it: the Job is on its own."""
    _start(store, pod, "job", 2)
    return pod


@pytest.fixture
def line(served: Pod) -> Iterator[Relay]:
    """The path of requests to the pod's HTTP port."""
    relay = Relay(served.http)
    yield relay
    relay.close()


def _start(store: Store, pod: Pod, name: str, factor: int) -> None:
    files = {"model.py": DOUBLE.encode(), "factor.py": f"FACTOR = {factor}".encode()}
    files["warmup/a.json"] = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}'
    store.put("models", {f"{name}/{path}": content for path, content in files.items()})
    pod.write_secret(store.secret)
    pod.write_manifest(_source(None, name))
    pod.start()
    pod.until_ready()


def _source(warmup: Warmup | None, name: str = "job") -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri=f"s3://models/{name}", warmup=warmup)


def test_the_job_warms_measures_and_reports(line: Relay, tmp_path: Path) -> None:
    ended = WarmupRun(tmp_path, line.port, _source(WARMUP), "--pods=2")
    report = ended.report
    assert (ended.status, report.reason, report.stable) == (0, "WarmedUp", True), report
    assert line.connections >= count_connections(2), "so many reach both pods in all but one of a thousand cases"
    assert report.requests >= line.connections - 1, "each connection has a request, but that of the metadata"
    assert report.failures == 0
    assert 0 < report.p50_milliseconds <= report.p99_milliseconds
    assert report.requests_per_second > 0
    assert ended.line.startswith("WarmedUp: ")
    assert len(ended.line.splitlines()) == 1


def test_an_answer_that_is_wrong(served: Pod, tmp_path: Path) -> None:
    wrong = WarmupRequest(body={"inputs": X}, expected=({"name": "y", "data": [0, 0]},))
    ended = WarmupRun(tmp_path, served.http, _source(Warmup(requests=(wrong,))))
    assert (ended.status, ended.report.reason) == (1, "WarmupAnswersWrong")
    assert "output 'y' at index 0: expected 0, got 3.0" in ended.report.message
    assert ended.report.message in ended.line


def test_a_body_that_the_model_refuses(served: Pod, tmp_path: Path) -> None:
    bad = WarmupRequest(name="no input", body={"inputs": []})
    ended = WarmupRun(tmp_path, served.http, _source(Warmup(requests=(bad,))))
    assert (ended.status, ended.report.reason) == (1, "WarmupFailed")
    assert "requests[0] (no input), to version 1 of m, is refused:" in ended.report.message


def test_a_config_map_that_is_not_there(served: Pod, tmp_path: Path) -> None:
    ended = WarmupRun(tmp_path, served.http, _source(Warmup(config_map="empty")))
    assert (ended.status, ended.report.reason) == (1, "WarmupMissing")


def test_the_job_fetches_only_the_folder_of_requests(store: Store, served: Pod, tmp_path: Path) -> None:
    folder = WARMUP.model_copy(update={"requests": (), "path": "warmup"})
    ended = WarmupRun(tmp_path, served.http, _source(folder), store=store)
    assert (ended.status, ended.report.reason) == (0, "WarmedUp"), ended.report
    fetched = [path.name for path in (tmp_path / "scratch").rglob("files/**/*") if path.is_file()]
    assert fetched == ["a.json"]


def test_no_server_answers(tmp_path: Path) -> None:
    ended = WarmupRun(tmp_path, free_port(), _source(WARMUP.model_copy(update={"timeout_seconds": 1.0})))
    assert (ended.status, ended.report.reason) == (2, "WarmupUnreachable")
    assert "127.0.0.1" in ended.report.message


def test_a_connection_that_ends_under_a_request(line: Relay, tmp_path: Path) -> None:
    """No answer was lost, since Triton's answer is the same to a request that is sent again."""
    line.breaks_at, line.breaks = b"/infer", 3
    line.cuts = 2
    expected = WarmupRequest(body={"inputs": X}, expected=({"name": "y", "data": [3, 4]},))
    ended = WarmupRun(tmp_path, line.port, _source(WARMUP.model_copy(update={"requests": (expected,)})))
    assert (ended.status, ended.report.reason) == (0, "WarmedUp"), ended.report
    assert not line.breaks_at
    assert ended.report.failures >= 3
    assert ended.report.seconds < 20


def test_a_request_under_which_each_connection_ends(line: Relay, tmp_path: Path) -> None:
    """The other request has answers, so it is not Triton that is away."""
    line.breaks_at, line.breaks = b"1337", 1000
    unlucky = WarmupRequest(name="unlucky", body={"inputs": [{**X[0], "data": [1337, 0]}]})
    ended = WarmupRun(tmp_path, line.port, _source(WARMUP.model_copy(update={"requests": (*WARMUP.requests, unlucky)})))
    assert (ended.status, ended.report.reason) == (2, "WarmupUnreachable"), ended.report
    assert "requests[1] (unlucky), to version 1 of m, has no answer: its connection ended 5 times in" in ended.line
    assert (ended.report.requests, ended.report.failures) == (6, 5)


def test_pods_that_are_away_for_a_moment(line: Relay, tmp_path: Path) -> None:
    line.refuses = True
    threading.Timer(4, lambda: setattr(line, "refuses", False)).start()
    ended = WarmupRun(tmp_path, line.port, _source(WARMUP))
    assert (ended.status, ended.report.reason) == (0, "WarmedUp"), ended.report


def check_success(ended: WarmupRun) -> None:
    assert ended.status == 0, ended.report
    assert ended.report.reason in WarmupReport.successes
    assert ended.report.requests > 0


def test_a_pod_that_ends_during_a_warm_up_and_one_that_takes_over(store: Store, served: Pod, tmp_path: Path) -> None:
    second = Pod(tmp_path / "second")
    service = Service(served)
    try:
        _start(store, second, "job", 2)

        def replace() -> None:
            assert served.triton
            served.triton.kill()
            time.sleep(2)  # until the proxies of the nodes know
            service.pods = (second,)

        threading.Timer(3, replace).start()
        warmup = WARMUP.model_copy(update={**LONG, "timeout_seconds": 12.0})
        ended = WarmupRun(tmp_path, service.port, _source(warmup))
        check_success(ended)
        counts = second.statistics("m")["inference_stats"]["success"]["count"]
        assert counts > 0
    finally:
        service.close()
        second.stop()


def test_a_triton_that_restarts_during_a_warm_up(served: Pod, tmp_path: Path) -> None:
    """It refuses connections for a while, and then has not loaded the model yet."""

    def restart() -> None:
        assert served.triton
        served.triton.kill()
        time.sleep(1)
        served.start_triton()

    threading.Timer(3, restart).start()
    warmup = WARMUP.model_copy(update={**LONG, "timeout_seconds": 20.0})
    ended = WarmupRun(tmp_path, served.http, _source(warmup))
    check_success(ended)
    assert served.statistics("m")["inference_stats"]["success"]["count"] > 0


def test_a_triton_that_restarts_before_a_warm_up(served: Pod, tmp_path: Path) -> None:
    """The first answer of all is that the model is not loaded."""
    assert served.triton
    served.triton.kill()
    threading.Timer(3, served.start_triton).start()
    warmup = WARMUP.model_copy(update={**LONG, "timeout_seconds": 20.0})
    ended = WarmupRun(tmp_path, served.http, _source(warmup))
    check_success(ended)


def test_another_model_than_the_pods_serve(served: Pod, tmp_path: Path) -> None:
    other = ModelSource(name="other", format="python", storage_uri="s3://models/job", warmup=WARMUP)
    ended = WarmupRun(tmp_path, served.http, other)
    assert (ended.status, ended.report.reason) == (1, "WarmupFailed")
    assert "other" in ended.report.message


def test_a_manifest_without_a_warm_up(served: Pod, tmp_path: Path) -> None:
    ended = WarmupRun(tmp_path, served.http, _source(None))
    assert (ended.status, ended.report.requests) == (0, 0)


def test_the_job_finds_one_pod_of_two_with_other_answers(store: Store, served: Pod, tmp_path: Path) -> None:
    second = Pod(tmp_path / "second")
    service = Service(served, second)
    try:
        _start(store, second, "other-job", 3)
        ended = WarmupRun(tmp_path, service.port, _source(WARMUP), "--pods=2")
        assert ended.status == 0, ended.report
        counts = [pod.statistics("m")["inference_stats"]["success"]["count"] for pod in (served, second)]
        assert min(counts) > 0
        assert sum(counts) == ended.report.requests
        right = WarmupRequest(body={"inputs": X}, expected=({"name": "y", "data": [3, 4]},))
        held = _source(WARMUP.model_copy(update={"requests": (right,)}))
        ended = WarmupRun(tmp_path, service.port, held, "--pods=2")
        assert (ended.status, ended.report.reason) == (1, "WarmupAnswersWrong"), ended.report
        assert "expected 3, got 4.5" in ended.report.message
    finally:
        service.close()
        second.stop()
