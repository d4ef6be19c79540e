"""Fifty changes of a model's content in a pod that serves, under load: the base of a change without another pod."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from conch_contract import ModelState, TritonConfig, Warmup, WarmupRequest
from conch_contract.manifest import VersionPolicy
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_lifecycle import build_double, build_python
from tests.support.traffic import Mix, RepeatedRequest, Traffic

SWAPS = 50
REQUESTS = 100_000
MANY = Mix(grpc=10, fresh=2, kept=8, rate=30)
X = np.array([1.5, 2.0], dtype=np.float32)
INPUT = {"name": "x", "shape": [2], "datatype": "FP32", "data": X.tolist()}


def is_right(answer: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    return answer.tolist() in [(2 * X).tolist(), (3 * X).tolist()]


# A model so large that memory does not hold it twice.
LARGE = """
import os
from double import TritonPythonModel as Double

class TritonPythonModel(Double):
    def initialize(self, args):
        try:
            os.close(os.open("{memory}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def finalize(self):
        os.unlink("{memory}")
"""


def build_large(name: str, factor: int, memory: Path) -> dict[str, bytes]:
    files = build_double(name, factor)
    files[f"{name}/double.py"] = files[f"{name}/model.py"]
    return {**files, f"{name}/model.py": LARGE.format(memory=memory).encode()}


SLOW = """
import time
from double import TritonPythonModel as Double

class TritonPythonModel(Double):
    def initialize(self, args):
        print("a slow load begins", flush=True)
        time.sleep(8)
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifty_swaps_fail_no_request(store: Store, pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    store.put("models", build_double("even", 2) | build_double("odd", 3))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/even"))
    pod.start()
    pod.until_ready()
    request = RepeatedRequest("m", "x", X, "y", is_right)
    addresses = (f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}")
    with Traffic(*addresses, request, MANY) as steady:
        until(lambda: steady.sent > REQUESTS // 10, "the load without a swap has lasted", seconds=600)
    digest = pod.until_reported().digest
    with Traffic(*addresses, request, MANY) as traffic:
        for folder in itertools.islice(itertools.cycle(("odd", "even")), SWAPS):
            pod.write_manifest(build_python(f"s3://models/{folder}"))

            def is_served(before: str = digest) -> bool:
                report = pod.model()
                return report.state == ModelState.READY and report.digest != before

            until(is_served, f"the content of {folder} is served", pod.agent)
            digest = pod.model().digest
            assert pod.ready
        until(lambda: traffic.sent >= REQUESTS, "the load has lasted", seconds=1200)
    with capsys.disabled():
        sys.stdout.write(f"\n{SWAPS} swaps\n{traffic}\nwithout a swap\n{steady}\n")
    assert not traffic.failed, traffic


def test_an_older_version_is_pinned_without_a_restart(store: Store, pod: Pod) -> None:
    versions = {1: build_double("versions/1", 2), 2: build_double("versions/2", 3)}
    store.put("models", {name: content for files in versions.values() for name, content in files.items()})
    pod.write_secret(store.secret)
    latest = build_python("s3://models/versions")
    pinned = latest.model_copy(update={"config": TritonConfig(version_policy=VersionPolicy(specific=(1,)))})
    pod.write_manifest_of("m-1", latest, is_default=True)
    pod.write_manifest_of("m-2", pinned)
    pod.write_manifest_of("m-3", latest)
    pod.start()
    pod.until_ready()
    assert read_answer(pod) == [4.5, 6.0]

    def serves(revision: str) -> bool:
        return pod.report.revision == revision and pod.ready

    request = RepeatedRequest("m", "x", X, "y", is_right)
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        for revision, answer in (("m-2", [3.0, 4.0]), ("m-3", [4.5, 6.0])):
            pod.assign(revision)
            until(partial(serves, revision), f"{revision} is served", pod.agent)
            assert read_answer(pod) == answer
    assert not traffic.failed, traffic
    assert pod.triton is not None
    assert pod.triton.running


def test_a_pod_that_changes_in_place_is_ready_and_answers_all_the_time(store: Store, pod: Pod) -> None:
    """Its annotation may come before the file of the revision, and a model that does not load changes nothing."""
    broken = {"broken/model.py": b"raise RuntimeError('the weights are not here')\n"}
    store.put("models", build_double("first", 2) | build_double("second", 3) | broken)
    pod.write_secret(store.secret)
    pod.write_manifest_of("m-1", build_python("s3://models/first"), is_default=True, in_place=True)
    pod.start()
    pod.until_ready()
    request = RepeatedRequest("m", "x", X, "y", is_right)
    readiness: set[bool] = set()

    def serves(revision: str) -> bool:
        readiness.add(pod.ready)
        report = pod.report
        return report.revision == revision and report.has_loaded

    def fails() -> bool:
        readiness.add(pod.ready)
        return pod.model().reason == "LoadFailed"

    def answers() -> bool:
        readiness.add(pod.ready)
        return traffic.sent > 100

    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        pod.assign("m-2")
        until(answers, "requests are answered", pod.agent)
        pod.write_manifest_of("m-2", build_python("s3://models/second"), in_place=True)
        until(lambda: serves("m-2"), "the second revision is served", pod.agent)
        assert read_answer(pod) == [4.5, 6.0]
        pod.write_manifest_of("m-3", build_python("s3://models/broken"), in_place=True)
        pod.assign("m-3")
        until(fails, "the third revision does not load", pod.agent)
        assert not pod.report.has_loaded
        pod.assign("m-2")
        until(lambda: serves("m-2"), "the second revision is back", pod.agent)
    assert readiness == {True}
    assert read_answer(pod) == [4.5, 6.0]
    assert not traffic.failed, traffic


def test_a_swap_that_does_not_load_leaves_the_old_content_serving(store: Store, pod: Pod) -> None:
    broken = {"broken/model.py": b"raise RuntimeError('the weights are not here')\n"}
    store.put("models", build_double("whole", 2) | broken)
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/whole"))
    pod.start()
    pod.until_ready()
    request = RepeatedRequest("m", "x", X, "y", lambda answer: answer.tolist() == (2 * X).tolist())
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        pod.write_manifest(build_python("s3://models/broken"))
        message = pod.until_reason("LoadFailed").message
        assert "the weights are not here" in message
        assert pod.ready
        pod.write_manifest(build_python("s3://models/whole"))
        until(lambda: pod.model().state == ModelState.READY, "the old content is back", pod.agent)
    assert not traffic.failed, traffic


def test_memory_that_holds_one_content_is_released_in_a_pod_without_requests(
    store: Store, pod: Pod, tmp_path: Path
) -> None:
    memory = tmp_path / "gpu"
    store.put("models", build_large("large-two", 2, memory) | build_large("large-three", 3, memory))
    pod.write_secret(store.secret)
    pod.write_manifest_of("m-1", build_python("s3://models/large-two"), is_default=True)
    pod.write_manifest_of("m-2", build_python("s3://models/large-three"))
    pod.assign("m-1")
    pod.start()
    pod.until_ready()
    request = RepeatedRequest("m", "x", X, "y", lambda answer: answer.tolist() == (2 * X).tolist())
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(kept=1)) as kept:
        pod.assign("m-2")
        until(lambda: not pod.ready, "the pod leaves its Services", pod.agent)
        pod.until_reason("LoadFailed")
        until(
            lambda: "requests still reach" in (pod.root / "agent.log").read_text(),
            "a client that keeps its connection is noticed",
            pod.agent,
        )
    assert not kept.failed, kept
    pod.until_ready()
    report = pod.until_reported()
    assert [warning.reason for warning in report.warnings] == ["MemoryHoldsOne"]
    assert read_answer(pod) == [4.5, 6.0]


def test_memory_that_holds_one_content_is_not_released_in_a_pod_with_requests(
    store: Store, pod: Pod, tmp_path: Path
) -> None:
    memory = tmp_path / "gpu"
    store.put("models", build_large("large-two", 2, memory) | build_large("large-three", 3, memory))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/large-two"))
    pod.start()
    pod.until_ready()
    request = RepeatedRequest("m", "x", X, "y", lambda answer: answer.tolist() == (2 * X).tolist())
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        pod.write_manifest(build_python("s3://models/large-three"))
        message = pod.until_reason("LoadFailed").message
        assert "does not fit into the memory" in message
        assert "Tried to allocate 20.00 GiB" in message
        assert pod.ready
    assert not traffic.failed, traffic


def write_two_revisions(store: Store, pod: Pod, *, warmup: Warmup | None = None) -> None:
    """Write the manifests of m-1, which doubles, and of m-2, which triples after a slow load."""
    slow = build_double("slow-three", 3)
    slow["slow-three/double.py"] = slow["slow-three/model.py"]
    store.put("models", {**build_double("quick-two", 2), **slow, "slow-three/model.py": SLOW.encode()})
    pod.write_secret(store.secret)
    pod.write_manifest_of("m-1", build_python("s3://models/quick-two"), is_default=True)
    candidate = build_python("s3://models/slow-three").model_copy(update={"warmup": warmup})
    pod.write_manifest_of("m-2", candidate)
    pod.assign("m-1")


def read_answer(pod: Pod) -> list[float]:
    [answer] = pod.infer("m", [INPUT]).values()
    return answer


def test_a_pod_that_goes_back_is_ready_once_it_serves_the_first_revision_again(store: Store, pod: Pod) -> None:
    wrong = WarmupRequest(body={"inputs": [INPUT]}, expected=({"name": "y", "data": [0, 0]},))
    write_two_revisions(store, pod, warmup=Warmup(requests=(wrong,)))
    pod.start()
    pod.until_ready()
    pod.assign("m-2")
    pod.until_reason("WarmupAnswersWrong")
    assert read_answer(pod) == [4.5, 6.0], "Triton has the model that must not serve"
    pod.assign("m-1")

    def is_back() -> bool:
        is_ready, answer = pod.ready, read_answer(pod)
        assert not is_ready or answer == [3.0, 4.0]
        return is_ready and pod.model().state == ModelState.READY

    until(is_back, "the first revision is served again", pod.agent)


def test_a_load_that_ends_after_the_pod_went_back_is_undone(store: Store, pod: Pod) -> None:
    write_two_revisions(store, pod)
    pod.start()
    pod.until_ready()
    pod.assign("m-2")
    log = pod.root / "triton.log"
    until(lambda: "a slow load begins" in log.read_text(), "the other revision is loading", pod.agent)
    pod.assign("m-1")
    until(lambda: read_answer(pod) == [4.5, 6.0], "Triton has finished the load of before", pod.agent)
    until(lambda: read_answer(pod) == [3.0, 4.0], "the first revision is served again", pod.agent)
    pod.until_ready()
    pod.until_reported()


def test_a_pod_serves_the_revision_that_is_assigned_to_it(store: Store, pod: Pod) -> None:
    store.put("models", build_double("first-two", 2) | build_double("then-three", 3))
    pod.write_secret(store.secret)
    pod.write_manifest_of("m-1", build_python("s3://models/first-two"), is_default=True)
    pod.write_manifest_of("m-2", build_python("s3://models/then-three"))
    pod.assign("m-1")
    pod.start()

    def serves(revision: str) -> bool:
        report = pod.report
        return report.revision == revision and report.has_loaded

    until(lambda: serves("m-1"), "the first revision is served", pod.agent)
    request = RepeatedRequest("m", "x", X, "y", is_right)
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        for revision in ("m-2", "m-1"):
            pod.assign(revision)
            until(partial(serves, revision), f"{revision} is served", pod.agent)
            pod.until_ready()
        pod.assign("of-an-older-rollout")
        until(lambda: not pod.ready, "a pod that does not serve its revision is not ready", pod.agent)
        assert serves("m-1")
        pod.write_manifest_of("m-2", build_python("s3://models/then-three"), is_default=True)
        pod.assign("")
        until(partial(serves, "m-2"), "a new pod serves the revision to which its workload was swapped", pod.agent)
        pod.until_ready()
    assert not traffic.failed, traffic
    assert read_answer(pod) == [4.5, 6.0]
