"""No pod is ready before its model is warm, and a failed warm-up is reported with its remedy."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conch_contract import ModelSource, ModelState, TritonConfig, VersionPolicy, Warmup, WarmupReport, WarmupRequest
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support.relay import Relay

BODY: dict[str, Any] = {"inputs": X}
Y = {"name": "y", "data": [3, 4]}
# A model that takes twice as long at every request: a busy machine does not make up for that.
TIRING = DOUBLE.replace("    def execute(self, requests):", "    def execute(self, requests):\n        tire()").replace(
    "from factor import FACTOR",
    "import itertools, time\nfrom factor import FACTOR\n"
    "WAITS = (0.005 * 2**turn for turn in itertools.count())\n"
    "def tire():\n    time.sleep(next(WAITS))\n",
)


def _double(store: Store, name: str, **more: str) -> None:
    files = {"model.py": DOUBLE, "factor.py": "FACTOR = 2", **more}
    store.put("models", {f"{name}/{path}": text.encode() for path, text in files.items()})


def _source(name: str, warmup: Warmup, config: TritonConfig | None = None) -> ModelSource:
    uri = f"s3://models/{name}"
    return ModelSource(name="m", format="python", storage_uri=uri, warmup=warmup, config=config or TritonConfig())


def _serve(store: Store, pod: Pod, name: str, warmup: Warmup, config: TritonConfig | None = None) -> None:
    pod.write_secret(store.secret)
    pod.write_manifest(_source(name, warmup, config))
    pod.start()


def _count_requests(pod: Pod, model: str = "m") -> int:
    return int(pod.statistics(model)["inference_stats"]["success"]["count"])


def _warmed(pod: Pod, model: str = "m") -> WarmupReport:
    report = pod.model(model).warmup
    assert report is not None
    return report


def _has_sent(pod: Pod, requests: int) -> bool:
    """Whether the last warm-up has sent so many requests."""
    report = pod.model().warmup
    return report is not None and report.requests >= requests


def test_a_pod_is_ready_once_its_model_is_warm(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("models", {"warm/model.onnx": magika_onnx})
    pod.write_secret(store.secret)
    source = ModelSource(name="magika", format="onnx", storage_uri="s3://models/warm", warmup=Warmup(within=0.5))
    pod.write_manifest(source)
    pod.start()
    seen: set[ModelState] = set()

    def ready() -> bool:
        seen.add(pod.model("magika").state)
        return pod.ready

    until(ready, "the pod is ready", pod.agent)
    assert ModelState.WARMING in seen
    report = _warmed(pod, "magika")
    assert (report.reason, report.failures) == ("WarmedUp", 0)
    assert report.requests == _count_requests(pod, "magika") >= 101
    assert 0 < report.p50_milliseconds <= report.p99_milliseconds
    assert report.requests_per_second > 0
    pod.until_reported("magika")


def test_the_requests_of_the_manifest_and_their_answers(store: Store, pod: Pod) -> None:
    _double(store, "right")
    request = WarmupRequest(name="two numbers", body=BODY, expected=(Y,))
    _serve(store, pod, "right", Warmup(requests=(request,), round_size=20, within=1.0))
    pod.until_ready()
    assert _warmed(pod).failures == 0
    assert _count_requests(pod) == _warmed(pod).requests


def test_a_wrong_answer_is_shown_until_it_is_right(store: Store, pod: Pod) -> None:
    _double(store, "wrong")
    wrong = WarmupRequest(name="two numbers", body=BODY, expected=({"name": "y", "data": [3, 5]},))
    right = WarmupRequest(body=BODY, expected=(Y,))
    _serve(store, pod, "wrong", Warmup(requests=(right, wrong), round_size=5))
    report = pod.until_reason("WarmupAnswersWrong")
    assert report.state == ModelState.FAILED
    assert report.message == (
        "Warm-up request requests[1] (two numbers), to version 1 of m, has another answer than expected: output 'y' "
        "at index 1: expected 5, got 4.0."
    )
    assert report.warmup
    assert (report.warmup.reason, report.warmup.requests, report.warmup.failures) == ("WarmupAnswersWrong", 2, 1)
    assert not pod.ready
    pod.write_manifest(_source("wrong", Warmup(requests=(right,), round_size=5, within=1.0)))
    pod.until_ready()
    assert pod.model().reason == ""
    assert pod.triton
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1, "another warm-up loads nothing anew"


def test_a_body_that_the_model_refuses_is_reported_with_tritons_message(store: Store, pod: Pod) -> None:
    _double(store, "refused")
    bad = {"inputs": [{"name": "z", "datatype": "FP32", "shape": [2], "data": [1.5, 2.0]}]}
    _serve(store, pod, "refused", Warmup(requests=(WarmupRequest(body=BODY), WarmupRequest(body=bad))))
    report = pod.until_reason("WarmupFailed")
    assert report.state == ModelState.FAILED
    assert "requests[1], to version 1 of m, is refused:" in report.message
    assert "'z'" in report.message, report.message
    assert not pod.ready


def test_requests_in_a_config_map_that_comes_late(store: Store, pod: Pod) -> None:
    _double(store, "mapped")
    pod.write_config_map("wake", {})
    _serve(store, pod, "mapped", Warmup(config_map="wake", round_size=5, within=1.0))
    assert "'wake'" in pod.until_reason("WarmupMissing").message
    assert not pod.ready
    pod.write_config_map("wake", {"a.json": json.dumps({**BODY, "expected": [Y]}), "b.json": '{"inputs": 1}'})
    report = pod.until_reason("WarmupFailed")
    assert "ConfigMap wake, key b.json" in report.message
    pod.write_config_map("wake", {"b.json": json.dumps(BODY)})
    pod.until_ready()


def test_a_config_map_that_has_changed_since_the_revisions_first_pod_is_named(store: Store, pod: Pod) -> None:
    """The pod's Triton restarts and is warmed again, like that of a later pod."""
    right, wrong = json.dumps({**BODY, "expected": [Y]}), json.dumps({**BODY, "expected": [{**Y, "data": [0, 0]}]})
    _double(store, "edited")
    pod.write_config_map("wake", {"a.json": right})
    source = _source("edited", Warmup(config_map="wake", round_size=5, within=1.0))
    pod.write_secret(store.secret)
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    first = pod.until_reported()
    pod.write_manifest(source.model_copy(update={"digest": first.digest, "warmup_digest": first.warmup_digest}))
    pod.write_config_map("wake", {"a.json": wrong})
    assert pod.triton
    pod.triton.kill()
    pod.start_triton()
    failed = pod.until_reason("WarmupAnswersWrong")
    assert "ConfigMap wake, key a.json" in failed.message
    assert "The ConfigMap 'wake' has changed since a pod of this revision was first ready" in failed.message
    pod.write_config_map("wake", {"a.json": right, "b.json": json.dumps(BODY)})
    pod.until_ready()
    report = pod.until_reported()
    assert [(warning.reason, warning.message[:20]) for warning in report.warnings] == [
        ("WarmupChanged", "The ConfigMap 'wake'")
    ]
    assert report.warmup_digest not in {"", first.warmup_digest}
    assert pod.infer("m", X) == {"y": [3.0, 4.0]}


def test_requests_in_the_models_own_folder(store: Store, pod: Pod) -> None:
    right, wrong = json.dumps({**BODY, "expected": [Y]}), json.dumps({**BODY, "expected": [{**Y, "data": [0, 0]}]})
    _double(store, "folder", **{"warmup/a.json": right, "warmup/b.json": wrong})
    _serve(store, pod, "folder", Warmup(path="warmup", round_size=5, within=1.0))
    assert "request warmup/b.json, to version 1" in pod.until_reason("WarmupAnswersWrong").message
    store.put("models", {"folder/warmup/b.json": right.encode()})
    pod.until_ready()
    assert pod.infer("m", X) == {"y": [3.0, 4.0]}


def test_a_folder_that_is_not_there_is_named(store: Store, pod: Pod) -> None:
    _double(store, "nothing")
    _serve(store, pod, "nothing", Warmup(path="warmup"))
    assert "s3://models/nothing has no file warmup/*.json" in pod.until_reason("WarmupMissing").message


def test_a_latency_that_never_settles_is_reported_and_no_failure(store: Store, pod: Pod) -> None:
    _double(store, "tiring", **{"model.py": TIRING})
    _serve(store, pod, "tiring", Warmup(timeout_seconds=4, round_size=4, percentile=50))
    pod.until_ready()
    report = _warmed(pod)
    assert not report.stable
    assert report.reason == "WarmupNotStable"
    assert "p50 latency" in report.message
    assert pod.model().reason == ""


def test_a_model_that_never_answers_keeps_the_pod_out(store: Store, pod: Pod) -> None:
    stuck = DOUBLE.replace("        return [\n", "        import time; time.sleep(600)\n        return [\n", 1)
    assert stuck != DOUBLE
    store.put("models", {"stuck/model.py": stuck.encode(), "stuck/factor.py": b"FACTOR = 2"})
    _serve(store, pod, "stuck", Warmup(timeout_seconds=2))
    report = pod.until_reason("WarmupTimedOut")
    assert "within 2 s" in report.message
    assert not pod.ready


def test_a_request_that_never_has_an_answer_keeps_the_pod_out(store: Store, pod: Pod) -> None:
    """The other request is answered, so the model is not silent as a whole."""
    stuck = DOUBLE.replace(
        "        return [\n",
        "        x = pb_utils.get_input_tensor_by_name(requests[0], 'x').as_numpy()\n"
        "        if x[0] == 1337:\n            import time; time.sleep(600)\n        return [\n",
        1,
    )
    _double(store, "stuck-one", **{"model.py": stuck})
    unlucky = WarmupRequest(name="unlucky", body={"inputs": [{**X[0], "data": [1337, 0]}]}, expected=(Y,))
    _serve(store, pod, "stuck-one", Warmup(requests=(WarmupRequest(body=BODY), unlucky), timeout_seconds=3))
    report = pod.until_reason("WarmupTimedOut")
    assert (
        "requests[1] (unlucky), to version 1 of m, has no answer within 3 s (no connection was lost)" in report.message
    )
    assert not pod.ready


def _serve_over_relay(store: Store, pod: Pod, name: str, breaks: int) -> Relay:
    """Start a pod whose first inferences each lose their connection."""
    line = Relay(pod.http, breaks_at=b"/infer", breaks=breaks)
    _double(store, name)
    pod.write_secret(store.secret)
    pod.write_manifest(_source(name, Warmup(round_size=5, within=1.0)))
    pod.start_agent(f"--triton-http-port={line.port}")
    pod.start_triton()
    return line


def test_a_connection_that_ends_under_a_request_ends_no_warm_up(store: Store, pod: Pod) -> None:
    line = _serve_over_relay(store, pod, "broken-line", 3)
    pod.until_ready()
    assert not line.breaks_at
    assert _warmed(pod).failures == 3
    assert pod.agent
    assert pod.agent.log.read_text().count("warming up") == 1
    line.close()


def test_connections_that_end_under_each_request_are_reported(store: Store, pod: Pod) -> None:
    line = _serve_over_relay(store, pod, "dead-line", 1000)
    report = pod.until_reason("WarmupUnreachable")
    assert "to version 1 of m, has no answer: its connection ended 5 times in" in report.message
    assert not pod.ready
    line.breaks_at = b""
    pod.until_ready()
    line.close()


def test_every_version_is_warmed_and_the_newest_is_held_to_the_answer(store: Store, pod: Pod) -> None:
    files = {f"both/{version}/model.py": DOUBLE.encode() for version in (1, 2)}
    files |= {f"both/{version}/factor.py": f"FACTOR = {version}".encode() for version in (1, 2)}
    store.put("models", files)
    request = WarmupRequest(body=BODY, expected=(Y,))
    both = TritonConfig(version_policy=VersionPolicy(all=True))
    _serve(store, pod, "both", Warmup(requests=(request,), round_size=10, within=1.0), both)
    pod.until_ready()
    counts = [each["inference_stats"]["success"]["count"] for each in pod.all_statistics("m")]
    assert len(counts) == 2
    assert min(counts) >= 10


def test_a_triton_that_died_is_warmed_again(store: Store, pod: Pod) -> None:
    _double(store, "again-warm")
    _serve(store, pod, "again-warm", Warmup(round_size=5, within=1.0))
    pod.until_ready()
    assert pod.triton
    pod.triton.kill()
    until(lambda: not pod.ready, "not ready without Triton", pod.agent)
    pod.start_triton()
    pod.until_ready()
    assert _count_requests(pod) == _warmed(pod).requests


def test_a_pod_is_ready_at_each_moment_of_a_change_of_its_manifest(store: Store, pod: Pod) -> None:
    _double(store, "changes")
    _serve(store, pod, "changes", Warmup(round_size=5, within=1.0))
    pod.until_ready()
    readiness: list[bool] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            readiness.append(pod.ready)

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        try:
            for size in (20, 80, 320):
                pod.write_manifest(_source("changes", Warmup(round_size=size, within=1.0)))
                warmed = partial(_has_sent, pod, 2 * size)
                until(warmed, "the changed warm-up has run", pod.agent)
        finally:
            is_over.set()
        for reader in readers:
            reader.result()
    assert all(readiness)


def test_a_swap_is_warmed_while_the_pod_stays_ready(store: Store, pod: Pod) -> None:
    _double(store, "swap-warm-a")
    _double(store, "swap-warm-b", **{"factor.py": "FACTOR = 4"})
    warmup = Warmup(round_size=5, within=1.0)
    _serve(store, pod, "swap-warm-a", warmup)
    pod.until_ready()
    pod.write_manifest(_source("swap-warm-b", warmup))
    readiness: list[bool] = []

    def swapped() -> bool:
        readiness.append(pod.ready)
        return pod.infer("m", X) == {"y": [6.0, 8.0]} and pod.model().state == ModelState.READY

    until(swapped, "the new content is warm", pod.agent)
    assert all(readiness)
    assert _warmed(pod).reason == "WarmedUp"


@pytest.mark.parametrize("kind", ["batched", "text", "half"])
def test_a_request_is_made_for_any_model(store: Store, pod: Pod, kind: str) -> None:
    changed = {
        "batched": DOUBLE.replace("max_batch_size(0)", "max_batch_size(4)"),
        "half": DOUBLE.replace("TYPE_FP32", "TYPE_FP16").replace("np.float32(FACTOR)", "np.float16(FACTOR)"),
        "text": DOUBLE.replace("TYPE_FP32", "TYPE_STRING").replace(" * np.float32(FACTOR)", ""),
    }[kind]
    _double(store, f"made-{kind}", **{"model.py": changed})
    _serve(store, pod, f"made-{kind}", Warmup(round_size=5, within=1.0))
    pod.until_ready()
    assert _warmed(pod).failures == 0
