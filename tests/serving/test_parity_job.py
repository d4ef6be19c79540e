"""The parity Job's program against two real Tritons: a stable revision, and candidates that answer better or worse."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch_contract import ModelSource, Parity, ParityReport, Warmup, WarmupRequest
from conch_contract.revision_jobs import PARITY
from tests.serving.job_run import JobRun
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.serving.test_warmup_job import Service
from tests.support.ports import free_port
from tests.support.relay import Relay

# The factor of a candidate that loads well and answers nothing.
RAISES = """
class Factor:
    def __float__(self):
        raise RuntimeError("the weights are gone")
FACTOR = Factor()
"""


class ParityRun(JobRun[ParityReport]):
    """A run of conch-parity."""

    def __init__(
        self, folder: Path, stable: int, candidate: int, parity: Parity | None = None, warmup: Warmup | None = None
    ) -> None:
        options = (
            f"--stable=127.0.0.1:{stable}",
            "--stable-model=m",
            f"--candidate=127.0.0.1:{candidate}",
            f"--parity={(parity or Parity()).to_json()}",
        )
        super().__init__(PARITY, folder, _source(warmup or Warmup(timeout_seconds=30)), *options)


def _source(warmup: Warmup | None) -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri="s3://models/parity", warmup=warmup)


def _start(store: Store, pod: Pod, name: str, factor: str) -> None:
    store.put("models", {f"{name}/model.py": DOUBLE.encode(), f"{name}/factor.py": factor.encode()})
    pod.write_secret(store.secret)
    pod.write_manifest(_source(None).model_copy(update={"storage_uri": f"s3://models/{name}"}))
    pod.start()
    pod.until_ready()


@pytest.fixture(scope="module")
def stable(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """The stable revision: it doubles."""
    pod = Pod(tmp_path_factory.mktemp("stable") / "conch")
    try:
        _start(store, pod, "parity-stable", "FACTOR = 2")
        yield pod
    finally:
        pod.stop()


def test_the_same_answers(store: Store, stable: Pod, pod: Pod, tmp_path: Path) -> None:
    _start(store, pod, "parity-same", "FACTOR = 2")
    ended = ParityRun(tmp_path, stable.http, pod.http)
    report = ended.report
    assert (ended.status, report.reason, report.requests, report.agreed) == (0, "Compared", 20, 20), report
    assert report.worst is None
    assert ended.line == "Compared: 20 requests, 20 compared, 20 agree\n"


def test_slightly_other_answers(store: Store, stable: Pod, pod: Pod, tmp_path: Path) -> None:
    _start(store, pod, "parity-near", "FACTOR = 2.001")
    two = Warmup(timeout_seconds=30, requests=(WarmupRequest(name="pair", body={"inputs": X}),))
    assert ParityRun(tmp_path, stable.http, pod.http, warmup=two).report.agreed == 1
    exact = ParityRun(tmp_path, stable.http, pod.http, Parity(bound=0.0), two).report
    assert (exact.compared, exact.agreed) == (1, 0)
    assert exact.worst is not None
    assert (exact.worst.request, exact.worst.output) == ("requests[0] (pair)", "y")
    assert ParityRun(tmp_path, stable.http, pod.http, Parity(method="argmax"), two).report.agreed == 1


def test_wrong_answers(store: Store, stable: Pod, pod: Pod, tmp_path: Path) -> None:
    _start(store, pod, "parity-wrong", "FACTOR = 5")
    pair = Warmup(timeout_seconds=30, requests=(WarmupRequest(body={"inputs": X}),))
    wrong = ParityRun(tmp_path, stable.http, pod.http, Parity(outputs=("y",)), pair)
    assert (wrong.status, wrong.report.compared, wrong.report.agreed) == (0, 1, 0), "the verdict is the operator's"
    worst = wrong.report.worst
    assert worst is not None
    assert (worst.output, worst.index, worst.stable, worst.candidate) == ("y", 0, "3", "7.5")
    assert ParityRun(tmp_path, stable.http, pod.http, Parity(method="cosine", bound=0.999), pair).report.agreed == 1
    nothing = ParityRun(tmp_path, stable.http, pod.http, Parity(outputs=("z",)), pair)
    assert (nothing.status, nothing.report.reason) == (1, "ParityNothingCompared")
    assert "no output 'z', but y (FP32 [2])" in nothing.report.message


def test_a_candidate_that_fails_disagrees_and_a_stable_revision_that_fails_is_left_out(
    store: Store, stable: Pod, pod: Pod, tmp_path: Path
) -> None:
    _start(store, pod, "parity-raises", RAISES)
    report = ParityRun(tmp_path, stable.http, pod.http).report
    assert (report.compared, report.agreed, report.candidate_failures) == (20, 0, 20)
    assert report.worst is not None
    assert "the weights are gone" in report.worst.candidate
    turned = ParityRun(tmp_path, pod.http, stable.http)
    assert (turned.status, turned.report.reason, turned.report.stable_failures) == (1, "ParityNothingCompared", 20)
    assert "the weights are gone" in turned.report.message


def test_no_server_answers(stable: Pod, tmp_path: Path) -> None:
    ended = ParityRun(tmp_path, stable.http, free_port(), warmup=Warmup(timeout_seconds=1))
    assert (ended.status, ended.report.reason) == (2, "ParityUnreachable")
    assert "the candidate" in ended.report.message


@pytest.mark.parametrize("side", ["stable", "candidate"])
def test_a_lost_connection_is_no_answer(stable: Pod, tmp_path: Path, side: str) -> None:
    """Neither a disagreement of the candidate, nor a request that is left out."""
    line = Relay(stable.http, breaks_at=b"/infer", breaks=3)
    ports = (line.port, stable.http) if side == "stable" else (stable.http, line.port)
    try:
        report = ParityRun(tmp_path, *ports).report
        assert not line.breaks_at
        assert (report.reason, report.compared, report.agreed) == ("Compared", 20, 20), report
        pair = Warmup(timeout_seconds=30, requests=(WarmupRequest(name="pair", body={"inputs": X}),))
        line.breaks_at, line.breaks = b"/infer", 1000
        ended = ParityRun(tmp_path, *ports, warmup=pair)
        assert (ended.status, ended.report.reason) == (2, "ParityUnreachable"), ended.report
        who = "stable revision" if side == "stable" else "candidate"
        assert f"The {who} has no answer to requests[0] (pair): its connection ended 5 times in" in ended.line
        assert (ended.report.stable_failures, ended.report.candidate_failures) == (0, 0)
    finally:
        line.close()


def test_a_revision_that_is_away_for_a_moment(stable: Pod, tmp_path: Path) -> None:
    line = Relay(stable.http)
    try:
        line.refuses = True
        threading.Timer(4, lambda: setattr(line, "refuses", False)).start()
        report = ParityRun(tmp_path, stable.http, line.port).report
        assert (report.reason, report.agreed) == ("Compared", 20), report
    finally:
        line.close()


def test_a_candidates_pod_that_ends_and_one_that_takes_over(
    store: Store, stable: Pod, pod: Pod, tmp_path: Path
) -> None:
    """The pod ends during a request; the Service sends connections to it for two more seconds."""
    _start(store, pod, "parity-ends", "FACTOR = 2")
    service = Service(pod)
    pairs = tuple(WarmupRequest(body={"inputs": [{**X[0], "data": [index, 1]}]}) for index in range(400))

    def replace() -> None:
        assert pod.triton
        pod.triton.kill()
        time.sleep(2)
        service.pods = (stable,)

    try:
        threading.Timer(3, replace).start()
        report = ParityRun(
            tmp_path, stable.http, service.port, warmup=Warmup(timeout_seconds=60, requests=pairs)
        ).report
        assert (report.reason, report.compared, report.agreed) == ("Compared", 400, 400), report
    finally:
        service.close()


def test_a_request_that_cannot_be_read(stable: Pod, tmp_path: Path) -> None:
    ended = ParityRun(tmp_path, stable.http, stable.http, warmup=Warmup(config_map="none"))
    assert (ended.status, ended.report.reason) == (1, "WarmupMissing")
