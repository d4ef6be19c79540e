"""Models that end Triton: the others serve, and the one that ends it on load is named."""

from __future__ import annotations

import functools
import time
import urllib.error

import pytest

from conch_contract import ModelSource, ModelState
from tests.serving.kubelet import Kubelet
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_repository import X, put
from tests.support.pipeline import ADDER, PIPELINE, PYTHON

KILL = b"os.kill(os.getppid(), signal.SIGKILL)"  # the parent of a model's process is Triton
IMPORTS = b"import os\nimport signal\nimport time\n"
ON_LOAD = IMPORTS + ADDER + b"\n    def initialize(self, args):\n        time.sleep(1)\n        " + KILL + b"\n"
SLOW = IMPORTS + ADDER + b"\n    def initialize(self, args):\n        time.sleep(3)\n"


def answers(pod: Pod, model: str) -> bool:
    try:
        return bool(pod.infer(model, X))
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.usefixtures("kubelet")
def test_the_model_that_ends_triton_on_load_is_named_and_the_others_serve(store: Store, pod: Pod) -> None:
    files = {**PIPELINE, "bad/config.pbtxt": PYTHON, "bad/1/model.py": ON_LOAD}
    pod.write_manifest(put(store, pod, "crashes-on-load", files, "pipeline"))
    pod.start()
    report = pod.until_reason("LoadCrashed", "bad")
    assert report.state == ModelState.FAILED
    assert "Triton ended 2 times while it loaded model 'bad'" in report.message
    assert "kubectl logs POD -c triton --previous" in report.message
    for name in ("pre", "double", "post", "pipeline"):
        pod.until_reported(name)
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    assert not pod.ready
    until(lambda: "ended 3 times" in pod.model("bad").message, "it is tried again", pod.agent)
    until(lambda: pod.model("pipeline").state == ModelState.READY, "the others come back", pod.agent)
    assert {model.reason for model in pod.report.models if model.name != "bad"} == {""}
    mended = {**files, "bad/1/model.py": ADDER}
    pod.write_manifest(put(store, pod, "crashes-mended", mended, "pipeline"))
    pod.until_ready()
    assert pod.infer("bad", X) == {"y": [2.5, 3.0]}
    assert pod.model("bad").reason == ""


@pytest.mark.usefixtures("kubelet")
def test_a_model_that_ends_triton_and_is_not_required_does_not_hold_its_pod(store: Store, pod: Pod) -> None:
    store.put("models", {"crashes-main/config.pbtxt": PYTHON, "crashes-main/1/model.py": ADDER})
    store.put("models", {"crashes-extra/config.pbtxt": PYTHON, "crashes-extra/1/model.py": ON_LOAD})
    pod.write_secret(store.secret)
    pod.write_manifest(
        ModelSource(name="main", format="triton", storage_uri="s3://models/crashes-main"),
        ModelSource(name="extra", format="triton", storage_uri="s3://models/crashes-extra", required=False),
    )
    pod.start()
    pod.until_ready()
    report = pod.until_reason("LoadCrashed", "extra")
    assert [warning.reason for warning in report.warnings] == ["ModelNotServed"]
    pod.until_ready()
    assert pod.infer("main", X) == {"y": [2.5, 3.0]}


def test_a_model_alone_that_ends_triton_on_load_is_named(store: Store, pod: Pod, kubelet: Kubelet) -> None:
    store.put("models", {"crashes-alone/config.pbtxt": PYTHON, "crashes-alone/1/model.py": ON_LOAD})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="triton", storage_uri="s3://models/crashes-alone"))
    pod.start()
    assert pod.until_reason("LoadCrashed").state == ModelState.FAILED
    restarts = kubelet.restarts
    time.sleep(3)  # less than the shortest delay
    assert kubelet.restarts <= restarts + 1
    assert pod.model().reason == "LoadCrashed"


@pytest.mark.usefixtures("kubelet")
def test_no_model_is_named_when_triton_is_killed_during_loads(store: Store, pod: Pod) -> None:
    files = {f"slow{number}/{name}": file for number in range(3) for name, file in build_files(SLOW).items()}
    pod.write_manifest(put(store, pod, "crashes-outside", {**PIPELINE, **files}, "pipeline"))
    pod.start()
    until(lambda: pod.model("slow1").state == ModelState.LOADING, "a load is under way", pod.agent)
    time.sleep(1)
    assert pod.triton
    pod.triton.kill()
    seen: set[str] = set()

    def is_ready() -> bool:
        seen.update(model.reason for model in pod.report.models)
        return pod.ready

    until(is_ready, "all serve", pod.agent)
    assert "LoadCrashed" not in seen
    assert all(answers(pod, f"slow{number}") for number in range(3))


def test_no_model_is_named_when_it_ends_triton_at_its_first_request(store: Store, pod: Pod, kubelet: Kubelet) -> None:
    kills = IMPORTS + ADDER.replace(b"        tensors", b"        " + KILL + b"\n        tensors")
    files = {**PIPELINE, **{f"late/{name}": file for name, file in build_files(kills).items()}}
    pod.write_manifest(put(store, pod, "crashes-late", files, "pipeline"))
    pod.start()
    for number in range(3):
        pod.until_ready()
        assert not answers(pod, "late")
        until(functools.partial(kubelet.has_restarted, number), "Triton is started again", pod.agent)
        until(lambda: not pod.ready, "not ready without its models", pod.agent)
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    assert "Crash" not in (pod.agent.log.read_text() if pod.agent else "Crash")


def build_files(program: bytes) -> dict[str, bytes]:
    return {"config.pbtxt": PYTHON, "1/model.py": program}
