"""The walking path: an ONNX model in S3 is fetched, laid out, loaded, and answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from conch_contract import ModelSource, ModelState, TritonConfig
from conch_contract.manifest import DynamicBatching, InstanceGroup
from tests.serving.pod import Pod
from tests.serving.store import Store


def _bytes(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 257, (1, 2048), dtype=np.int32)


def _input(rows: np.ndarray) -> list[dict[str, Any]]:
    return [{"name": "bytes", "datatype": "INT32", "shape": list(rows.shape), "data": rows.ravel().tolist()}]


def _expected(model: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["target_label"], {"bytes": rows})[0])


def test_a_model_in_s3_is_served(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("models", {"magika/detector.onnx": magika_onnx})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="magika", format="onnx", storage_uri="s3://models/magika"))
    pod.start()
    pod.until_ready()

    rows = _bytes(1)
    answer = np.array(pod.infer("magika", _input(rows))["target_label"]).reshape(1, -1)
    np.testing.assert_allclose(answer, _expected(magika_onnx, rows), rtol=1e-4, atol=1e-6)
    report = pod.until_reported("magika")
    assert report.bytes_fetched == report.bytes_total == magika_onnx.stat().st_size
    assert report.digest.startswith("sha256:")
    assert [(version.version, version.state) for version in report.versions] == [(1, ModelState.READY)]
    assert report.load_seconds > 0


def test_concurrent_requests_are_batched_and_answer_as_single_ones(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("models", {"batch/model.onnx": magika_onnx})
    pod.write_secret(store.secret)
    typed = TritonConfig(
        max_batch_size=8,
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=200_000, preferred_batch_size=(8,)),
        instance_groups=(InstanceGroup(kind="CPU", count=1),),
    )
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri="s3://models/batch/", config=typed))
    pod.start()
    pod.until_ready()
    config = pod.triton_config("m")
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 200_000

    many = [_bytes(seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: pod.infer("m", _input(rows))["target_label"], many))
    for rows, answer in zip(many, answers, strict=True):
        np.testing.assert_allclose(np.array(answer), _expected(magika_onnx, rows).ravel(), rtol=1e-4, atol=1e-6)
    batches = pod.statistics("m")["batch_stats"]
    assert any(batch["batch_size"] > 1 for batch in batches), batches


def test_a_model_without_a_typed_batch_has_the_size_of_the_native_backend(
    store: Store, pod: Pod, magika_onnx: Path
) -> None:
    store.put("models", {"default/1/model.onnx": magika_onnx, "default/2/model.onnx": magika_onnx})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri="s3://models/default"))
    pod.start()
    pod.until_ready()
    config = pod.triton_config("m")
    assert (config["max_batch_size"], config["backend"]) == (4, "onnxruntime")
    assert [tensor["dims"] for tensor in config["input"]] == [["2048"]] or config["input"][0]["dims"] == [2048]
    assert [version.version for version in pod.model("m").versions if version.state == ModelState.READY] == [2]


def test_a_file_that_is_no_onnx_model_fails_in_the_words_of_the_runtime(store: Store, pod: Pod) -> None:
    store.put("models", {"broken/model.onnx": b"these are not the bytes of a model"})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri="s3://models/broken"))
    pod.start()
    report = pod.until_reason("LoadFailed")
    assert report.state == ModelState.FAILED
    assert "protobuf" in report.message.lower() or "invalid" in report.message.lower(), report.message
    assert not pod.ready
