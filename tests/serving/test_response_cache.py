"""The response cache of a real Triton: one field of the manifest, hits in the metrics, and its limits."""

from __future__ import annotations

import pytest

from conch.api import Triton
from conch.triton import build_server_command, count_cache_bytes
from conch_contract import ModelSource, TritonConfig
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_config import ECHO, ENSEMBLE, ONE_ROW, TENSORS

CACHED = TritonConfig(response_cache=True)
PATCHED = TritonConfig(text="response_cache { enable: true }")
SIZE = count_cache_bytes(Triton.model_validate({"responseCache": {"size": "1Mi"}}))
[FLAG] = [word for word in build_server_command((), cache_bytes=SIZE)[2].split() if "cache" in word]
DECOUPLED = ECHO.replace(
    b"config.set_max_batch_size(0)",
    b"config.set_max_batch_size(0)\n        config.set_model_transaction_policy({'decoupled': True})",
)


def put(
    store: Store, pod: Pod, name: str, files: dict[str, bytes], config: TritonConfig, *, kind: str = "onnx"
) -> ModelSource:
    """Upload a model whose Triton has a cache; return its source."""
    folder = f"{pod.root.parent.name}-{name}"
    store.put("models", {f"{folder}/{file}": content for file, content in files.items()})
    pod.write_secret(store.secret)
    fields = {"name": name, "format": kind, "storageUri": f"s3://models/{folder}", "hasResponseCache": True}
    return ModelSource.model_validate({**fields, "config": config})


def multiplier(store: Store, pod: Pod, name: str, factor: int, config: TritonConfig = CACHED) -> ModelSource:
    """Upload a model that multiplies by a factor; return its source."""
    files = {"config.pbtxt": b"max_batch_size: 4" + TENSORS, "m.onnx": multiply(factor)}
    return put(store, pod, name, files, config)


def count(pod: Pod, metric: str, model: str) -> int:
    """Return a counter of a model on Triton's metrics page."""
    start = f'{metric}{{model="{model}",'
    return sum(int(float(line.split()[-1])) for line in pod.read_metrics().splitlines() if line.startswith(start))


def find_warning(pod: Pod, name: str) -> str:
    """Return the message of the warning about the cache."""
    warnings = pod.until_reported(name).warnings
    return next((warning.message for warning in warnings if warning.reason == "ResponseCacheOff"), "")


def test_equal_requests_are_answered_from_the_cache_until_the_model_changes_in_its_pod(store: Store, pod: Pod) -> None:
    pod.write_manifest(multiplier(store, pod, "m", 2))
    pod.start_agent()
    pod.start_triton(FLAG)
    pod.until_ready()
    assert pod.triton_config("m")["response_cache"] == {"enable": True}
    for _ in range(3):
        assert pod.infer("m", ONE_ROW) == {"y": [3, 4]}
    assert pod.statistics("m")["execution_count"] == 1
    assert count(pod, "nv_cache_num_hits_per_model", "m") == 2
    assert count(pod, "nv_cache_num_misses_per_model", "m") == 1
    assert pod.infer("m", [{**ONE_ROW[0], "data": [5.0, 6.0]}]) == {"y": [10, 12]}
    assert find_warning(pod, "m") == ""
    before = pod.until_reported().digest
    other = multiplier(store, pod, "other", 3)
    pod.write_manifest(other.model_copy(update={"name": "m"}))
    until(lambda: pod.until_reported().digest != before, "the pod serves the other content", pod.agent)
    assert pod.infer("m", [{**ONE_ROW[0], "data": [7.0, 8.0]}]) == {"y": [21, 24]}
    assert pod.infer("m", ONE_ROW) == {"y": [3, 4]}, "an answer of the old model: why conch.decide.swap excludes it"


def test_half_of_a_cache_is_a_warning(store: Store, pod: Pod) -> None:
    """Triton reports neither half."""
    uncached = multiplier(store, pod, "m", 2, PATCHED).model_copy(update={"has_response_cache": False})
    pod.write_manifest(uncached)
    pod.start()
    assert "Triton has no response cache" in find_warning(pod, "m")
    for _ in range(2):
        assert pod.infer("m", ONE_ROW) == {"y": [3, 4]}
    assert pod.statistics("m")["execution_count"] == 2
    names = ("a", "b")
    pod.write_manifest(*(multiplier(store, pod, name, 2, TritonConfig()) for name in names))
    pod.until_ready()
    until(lambda: "no model of the pod uses it" in find_warning(pod, "a"), "it is reported once", pod.agent)
    assert find_warning(pod, "b") == ""
    pod.write_manifest(*(multiplier(store, pod, name, 2, PATCHED if name == "b" else TritonConfig()) for name in names))
    until(lambda: not find_warning(pod, "a") and not find_warning(pod, "b"), "b uses it", pod.agent)


def test_an_ensemble_has_a_cache_of_its_own(store: Store, pod: Pod) -> None:
    steps = [multiplier(store, pod, name, 2, TritonConfig()) for name in ("before", "after")]
    text = ENSEMBLE.replace(b"[-1]", b"[2]") + b"max_batch_size: 4"
    ensemble = put(store, pod, "m", {"config.pbtxt": text, "1/.keep": b""}, PATCHED, kind="triton")
    pod.write_manifest(*steps, ensemble)
    pod.start_agent()
    pod.start_triton(FLAG)
    pod.until_ready()
    for _ in range(3):
        assert pod.infer("m", ONE_ROW) == {"y": [6, 8]}
    assert pod.statistics("before")["execution_count"] == 1


@pytest.mark.parametrize("kind", ["python", "onnx"])
def test_a_model_that_triton_cannot_cache_is_refused_with_a_remedy(store: Store, pod: Pod, kind: str) -> None:
    """The configuration of a Python model is complete, and may be decoupled, once Triton has run its program."""
    sequences = b"max_batch_size: 4 sequence_batching { direct {} }" + TENSORS
    files = {"model.py": DECOUPLED} if kind == "python" else {"config.pbtxt": sequences, "m.onnx": multiply(2)}
    pod.write_manifest(put(store, pod, "m", files, CACHED, kind=kind))
    pod.start_agent()
    pod.start_triton(FLAG)
    if kind == "python":
        message = pod.until_reason("LoadFailed").message
        assert "Remove spec.predictor.triton.responseCache" in message
        assert "Triton's words:" in message
    else:
        assert "Remove responseCache from the InferenceService" in pod.until_reason("ConfigConflict").message
