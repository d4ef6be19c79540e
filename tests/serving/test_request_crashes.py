"""Models that end Triton while it answers requests: the one that does is named, and the others serve."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Mapping

import pytest

from conch_agent.triton import Triton
from conch_contract import ModelState
from tests.serving.kubelet import Kubelet
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_crashes import IMPORTS, KILL, answers
from tests.serving.test_repository import X, put
from tests.support.pipeline import ADDER, PIPELINE, PYTHON

ANSWERS = 3  # of a model that ends Triton at the next request
ON_REQUEST = IMPORTS + ADDER.replace(
    b"        tensors",
    b"        self.requests = getattr(self, 'requests', 0) + 1\n"
    + f"        if self.requests > {ANSWERS}:\n            ".encode()
    + KILL
    + b"\n        tensors",
)
FILES = {
    "main/config.pbtxt": PYTHON,
    "main/1/model.py": ADDER,
    "bad/config.pbtxt": PYTHON,
    "bad/1/model.py": ON_REQUEST,
}
READ_SECONDS = 1.2  # more than the agent takes from one read of the statistics to the next


def end_triton(pod: Pod, kubelet: Kubelet, model: str) -> None:
    """Send requests to a model until Triton ends, and wait until it is started again."""
    restarts = kubelet.restarts
    for _ in range(ANSWERS):
        pod.infer(model, X)
        time.sleep(READ_SECONDS)
    assert not answers(pod, model)
    until(functools.partial(kubelet.has_restarted, restarts), "Triton is started again", pod.agent)
    until(lambda: count_ends(pod) > restarts, "the agent has noticed it", pod.agent)
    # It reports so a moment later, until when the pod counts as ready. To load the model takes over a second.
    until(lambda: pod.model(model).state != ModelState.READY, "the model is not ready", pod.agent)


def count_ends(pod: Pod) -> int:
    return pod.agent.log.read_text().count("triton ended") if pod.agent else 0


def test_the_model_that_ends_triton_at_requests_is_named_and_the_others_serve(
    store: Store, pod: Pod, kubelet: Kubelet
) -> None:
    pod.write_manifest(put(store, pod, "requests-end", FILES, "main"))
    pod.start()
    pod.until_ready()
    assert answers(pod, "main")
    end_triton(pod, kubelet, "bad")
    for _ in range(2):
        pod.until_ready()
        assert pod.model("bad").reason == ""
        end_triton(pod, kubelet, "bad")
    report = pod.until_reason("RequestsCrashed", "bad")
    assert report.state == ModelState.FAILED
    assert "Triton ended 3 times while it answered requests" in report.message
    assert [warning.reason for warning in report.warnings] == ["ModelNotServed"]
    assert report.warnings[0].message.startswith("Model bad is not served: Triton ended 3 times")
    pod.until_ready()
    assert pod.model("bad").reason == "RequestsCrashed", "the pod is ready without it"
    assert answers(pod, "main")
    assert not answers(pod, "bad")

    seen: set[bool] = set()

    def is_back() -> bool:
        seen.add(pod.ready)
        return pod.model("bad").state == ModelState.READY

    until(is_back, "it is loaded again", pod.agent)
    assert seen == {True}
    assert not pod.model("bad").warnings

    end_triton(pod, kubelet, "bad")
    until(lambda: "ended 4 times" in pod.model("bad").message, "it is named at once", pod.agent)
    mended = {**FILES, "bad/1/model.py": ADDER}
    pod.write_manifest(put(store, pod, "requests-mended", mended, "main"))
    pod.until_reported("bad")
    pod.until_ready()
    assert pod.infer("bad", X) == {"y": [2.5, 3.0]}


def test_the_entry_is_named_and_loaded_again_at_once(store: Store, pod: Pod, kubelet: Kubelet) -> None:
    pod.write_manifest(put(store, pod, "requests-entry", FILES, "bad"))
    pod.start()
    pod.until_ready()
    assert answers(pod, "main")
    for _ in range(3):
        pod.until_ready()
        end_triton(pod, kubelet, "bad")
    pod.until_ready()
    assert answers(pod, "bad")
    [warning] = pod.model("bad").warnings
    assert warning.reason == "CrashSuspected"
    assert "each time after model 'bad' had answered some" in warning.message
    assert "loaded again at once, since its pod does not serve without it" in warning.message


def test_the_models_of_an_ensemble_are_reported_and_loaded_again(store: Store, pod: Pod, kubelet: Kubelet) -> None:
    files = {**PIPELINE, "post/1/model.py": ON_REQUEST, "other/config.pbtxt": PYTHON, "other/1/model.py": ADDER}
    pod.write_manifest(put(store, pod, "requests-ensemble", files, "pipeline"))
    pod.start()
    pod.until_ready()
    assert answers(pod, "other")
    for _ in range(3):
        pod.until_ready()
        assert not pod.model("double").warnings
        end_triton(pod, kubelet, "pipeline")
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    assert {model.reason for model in pod.report.models} == {""}
    [warning] = pod.model("double").warnings
    assert warning.reason == "CrashSuspected"
    assert (
        "each time these models had answered some in the last 10 s: double, pipeline, post and pre." in warning.message
    )
    assert not any(model.warnings for model in pod.report.models if model.name != "double")


def test_requests_are_counted_also_those_to_steps_and_those_with_an_error(store: Store, pod: Pod) -> None:
    failing = ADDER.replace(b"        tensors", b"        raise ValueError('no answer')\n        tensors")
    files = {**PIPELINE, "fails/config.pbtxt": PYTHON, "fails/1/model.py": failing}
    pod.write_manifest(put(store, pod, "requests-counted", files, "pipeline"))
    pod.start()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    assert not answers(pod, "fails")

    async def count() -> Mapping[str, int]:
        triton = Triton(f"127.0.0.1:{pod.grpc}", (pod.root / "control" / "key").read_text())
        try:
            return await triton.count_requests()
        finally:
            await triton.close()

    expected = dict.fromkeys(("pipeline", "pre", "double", "post", "fails"), 1)
    until(lambda: asyncio.run(count()) == expected, "Triton has counted the requests", pod.agent)
    pod.write_manifest(put(store, pod, "requests-fewer", PIPELINE, "pipeline"))
    until(lambda: "fails" not in asyncio.run(count()), "a model that is not served has no count", pod.agent)


@pytest.mark.long  # the times without an end have to be ten times those before one
def test_the_model_is_named_beside_one_that_answers_all_the_time(store: Store, pod: Pod, kubelet: Kubelet) -> None:
    pod.write_manifest(put(store, pod, "requests-beside", FILES, "main"))
    pod.start()
    pod.until_ready()
    stop = threading.Event()

    def send_requests() -> None:
        while not stop.wait(0.2):
            answers(pod, "main")

    clients = threading.Thread(target=send_requests)
    clients.start()
    try:
        for _ in range(3):
            pod.until_ready()
            time.sleep(35)
            end_triton(pod, kubelet, "bad")
        pod.until_reason("RequestsCrashed", "bad")
        pod.until_ready()
        pod.until_reported("main")
        assert not answers(pod, "bad")
        assert answers(pod, "main")
    finally:
        stop.set()
        clients.join(60)
