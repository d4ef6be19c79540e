"""Pods that share a claim: one download for all, and starts without the store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conch_contract import ModelSource, ModelState
from conch_contract.report import Origin
from tests.serving.onnx_files import multiply, pack_factor
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import X
from tests.serving.test_lifecycle import SIZE, build_double, build_python
from tests.support.relay import Relay

MakePod = Callable[[], Pod]


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    folder.mkdir()
    return folder


@pytest.fixture
def make_pod(claim: Path, store: Store, line: Relay, tmp_path: Path) -> Iterator[MakePod]:
    """Make a pod that mounts the claim, and fetches over the line."""
    pods: list[Pod] = []

    def make() -> Pod:
        pod = Pod(tmp_path / f"pod-{len(pods)}")
        pods.append(pod)
        (pod.root / "cache").symlink_to(claim)
        pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
        return pod

    yield make
    for pod in pods:
        pod.stop()


def put_large(store: Store, prefix: str) -> None:
    store.put("models", {**build_double(prefix, 2), f"{prefix}/weights.bin": os.urandom(SIZE)})


def serve_once(pod: Pod, source: ModelSource) -> str:
    """Have a pod serve a model, and end; return the digest of its files."""
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    digest = pod.until_reported().digest
    pod.stop()
    return digest


def test_ten_pods_download_a_model_once(store: Store, make_pod: MakePod, line: Relay) -> None:
    put_large(store, "shared")
    pods = [make_pod() for _ in range(10)]
    line.passed = 0
    for pod in pods:
        pod.start_agent()
    for pod in pods:  # all are live, so that they want it at one time
        pod.write_manifest(build_python("s3://models/shared"))
    for pod in pods:
        until(lambda pod=pod: pod.model().state == ModelState.LOADING, "it is laid out", pod.agent)  # type: ignore[misc]
    assert line.passed < SIZE * 1.1
    pages = [pod.read_agent_metrics() for pod in pods]
    assert sum(page['conch_model_cache_files_total{model="m",result="miss"}'] for page in pages) == 3
    assert sum(page['conch_model_cache_files_total{model="m",result="hit"}'] for page in pages) == 3 * 9
    assert sum(page['conch_model_downloaded_bytes_total{model="m"}'] for page in pages) < SIZE * 1.1
    assert sum(page['conch_model_cache_waits_total{model="m"}'] for page in pages) > 0
    for pod in pods[:2]:
        pod.start_triton()
        pod.until_ready()
        assert pod.infer("m", X)["y"] == [3.0, 4.0]


def test_a_pod_starts_from_the_cache_without_the_store(store: Store, make_pod: MakePod, line: Relay) -> None:
    put_large(store, "away")
    first, second = make_pod(), make_pod()
    source = build_python("s3://models/away")
    digest = serve_once(first, source)
    line.refuses, line.passed = True, 0
    second.write_manifest(source.model_copy(update={"digest": digest}))
    second.start()
    second.until_ready()
    report = second.until_reported()
    assert second.infer("m", X)["y"] == [3.0, 4.0]
    assert report.digest == digest
    assert report.warnings == ()
    assert report.origin == Origin.CACHE
    assert report.bytes_fetched == report.bytes_total
    assert line.passed == 0
    page = second.read_agent_metrics()
    assert page['conch_model_downloaded_bytes_total{model="m"}'] == 0
    assert page['conch_model_cache_files_total{model="m",result="hit"}'] == 3
    for phase in ("list", "fetch", "verify", "layout", "load"):
        assert page[f'conch_model_phase_seconds_count{{model="m",phase="{phase}"}}'] >= 1
    assert page["conch_pod_start_time_seconds"] < page["conch_pod_ready_time_seconds"]

    def find_first_answer() -> float | None:
        second.infer("m", X)  # the agent counts those after it has seen that the pod is ready
        return second.read_agent_metrics().get("conch_pod_first_answer_time_seconds")

    assert until(find_first_answer, "an answer is counted") > page["conch_pod_ready_time_seconds"]


def test_a_pod_of_a_new_revision_starts_while_the_store_is_away(store: Store, make_pod: MakePod, line: Relay) -> None:
    """Its digest is not known yet: the last files of the store serve, until it answers and has the same ones."""
    store.put("models", build_double("outage", 2))
    first, second = make_pod(), make_pod()
    source = build_python("s3://models/outage")
    digest = serve_once(first, source)
    line.refuses = True
    second.write_manifest(source)
    second.start()
    second.until_ready()
    report = second.until_reported()
    assert second.infer("m", X)["y"] == [3.0, 4.0]
    assert (report.digest, report.origin) == (digest, Origin.CACHE)
    [warning] = report.warnings
    assert warning.reason == "ServedFromCache"
    assert "s3://models/outage had them at 20" in warning.message
    assert "cannot be reached" in warning.message
    line.refuses = False
    until(lambda: not second.model().warnings, "the store has answered", second.agent)
    assert second.ready


def test_a_killed_agent_is_followed_by_another_pod_where_it_was(store: Store, make_pod: MakePod, line: Relay) -> None:
    put_large(store, "followed")
    first, second = make_pod(), make_pod()
    for pod in (first, second):
        pod.write_manifest(build_python("s3://models/followed"))
    line.rate = 16 * 1024 * 1024
    first.start_agent()
    until(lambda: first.model().bytes_fetched > SIZE // 3, "a third is fetched", first.agent)
    second.start()
    until(lambda: second.model().bytes_fetched > SIZE // 3, "the progress is seen by others", second.agent)
    assert first.agent
    first.agent.kill()
    line.passed, line.rate = 0, 0
    second.until_ready()
    assert second.infer("m", X)["y"] == [3.0, 4.0]
    assert line.passed < SIZE * 3 // 4


def test_a_model_that_changes_leaves_nothing_behind(store: Store, make_pod: MakePod, claim: Path) -> None:
    store.put("models", build_double("first", 2))
    store.put("models", build_double("second", 3))
    pod = make_pod()
    pod.write_manifest(build_python("s3://models/first"))
    pod.start()
    pod.until_ready()
    pod.write_manifest(build_python("s3://models/second"))
    until(lambda: pod.infer("m", X)["y"] == [4.5, 6.0], "it is exchanged")
    pod.until_reported()
    [folder] = (claim / ".conch-cache" / "pods").iterdir()
    assert len([path for path in (folder / "m").iterdir() if path.name.startswith("laid")]) == 1


@pytest.mark.parametrize("problem", ["newer", "full", "no folder"])
def test_a_pod_does_without_a_cache_that_it_cannot_use(
    store: Store, make_pod: MakePod, claim: Path, problem: str
) -> None:
    store.put("models", build_double("alone", 2))
    pod = make_pod()
    if problem == "newer":
        (claim / ".conch-cache").mkdir()
        (claim / ".conch-cache" / "format").write_text("2\n")
    elif problem == "no folder":
        (claim / ".conch-cache").write_text("no folder")
    pod.write_manifest(build_python("s3://models/alone"))
    pod.start_agent(*(["--cache-bytes=10"] if problem == "full" else []))
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    [warning] = pod.until_reported().warnings
    assert warning.reason == "CacheUnused"
    causes = {
        "newer": "its format is '2', and this agent knows format 1: use the serving image that wrote it, or another"
        " claim",
        "full": r"\d+ more bytes are needed, and \d+ of them do not fit into the sizeLimit of 10 bytes beside what pods"
        r" use: use a larger claim or sizeLimit",
        "no folder": r"File exists \(\S+/\.conch-cache\): check the storage of the claim",
    }
    rest = r"\. This pod has fetched the model for itself\."
    sentence = rf"The claim of spec\.predictor\.cache is not used: {causes[problem]}{rest}"
    assert re.fullmatch(sentence, warning.message), warning.message


def test_an_agent_that_starts_again_serves_what_is_laid_out(store: Store, make_pod: MakePod) -> None:
    store.put("models", build_double("again", 2))
    pod = make_pod()
    pod.write_manifest(build_python("s3://models/again"))
    pod.start()
    pod.until_ready()
    pod.until_reported()
    assert pod.agent
    pod.agent.kill()
    pod.start_agent()
    pod.until_ready()
    assert pod.triton
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1


def test_onnx_weights_in_a_file_of_their_own(store: Store, make_pod: MakePod) -> None:
    """ONNX Runtime refuses weights that a symbolic link has outside of the model's folder."""
    files = {"model.onnx": multiply(2, weights="weights.bin"), "weights.bin": pack_factor(2)}
    store.put("models", {f"external/{name}": content for name, content in files.items()})
    pod = make_pod()
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri="s3://models/external"))
    pod.start()
    pod.until_ready()
    assert pod.infer("m", [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}])["y"] == [3.0, 4.0]


def test_a_pod_whose_lease_was_lost_serves_and_starts_again_from_the_cache(
    store: Store, make_pod: MakePod, claim: Path, line: Relay
) -> None:
    """As after an agent that was stopped, or had no claim, for longer than its lease: others delete its folder."""
    store.put("models", build_double("lost", 2))
    pod, source = make_pod(), build_python("s3://models/lost")
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    digest = pod.until_reported().digest
    pod.write_manifest(source.model_copy(update={"digest": digest}))
    assert pod.agent
    assert pod.triton
    pod.agent.kill()
    for folder in (claim / ".conch-cache" / "pods").iterdir():
        shutil.rmtree(folder)
    line.refuses = True
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    pod.start_agent()
    pod.until_ready()
    assert pod.until_reported().warnings == ()
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1
    pod.triton.kill()
    until(lambda: not pod.ready, "the agent has noticed", pod.agent)
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]


def test_a_clock_that_is_set_forward_takes_nothing_from_a_pod_that_serves(
    store: Store, make_pod: MakePod, claim: Path, line: Relay
) -> None:
    """Another pod needs the space at that moment, and Triton starts again after it, without the store."""
    store.put("models", build_double("kept", 2))
    store.put("models", build_double("other", 3))
    pod, other = make_pod(), make_pod()
    pod.write_manifest(build_python("s3://models/kept"))
    pod.start()
    pod.until_ready()
    [folder] = (claim / ".conch-cache" / "pods").iterdir()
    until((folder / ".lease").exists, "the agent holds its lease", pod.agent)
    os.utime(folder, (0, 0))
    other.write_manifest(build_python("s3://models/other"))
    other.start_agent("--cache-bytes=100")
    other.start_triton()
    other.until_ready()
    [warning] = other.until_reported().warnings
    assert "do not fit into the sizeLimit of 100 bytes beside what pods use" in warning.message
    line.refuses = True
    assert pod.triton
    pod.triton.kill()
    until(lambda: not pod.ready, "the agent has noticed", pod.agent)
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
