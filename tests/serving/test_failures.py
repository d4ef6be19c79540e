"""What a user does wrong: the reason stands in /status in words that help, and the cure is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_contract import ModelSource, ModelState
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store


def _model(uri: str) -> ModelSource:
    return ModelSource(name="m", format="onnx", storage_uri=uri)


def test_wrong_credentials_then_right_ones(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("private", {"m/model.onnx": magika_onnx})
    pod.write_secret({**store.secret, "AWS_SECRET_ACCESS_KEY": "wrong"})
    pod.write_manifest(_model("s3://private/m"))
    pod.start()
    report = pod.until_reason("AccessDenied")
    assert report.state == ModelState.FAILED
    for part in ("s3://private/m", "AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"):
        assert part in report.message
    assert not pod.ready
    pod.write_secret(store.secret)
    pod.until_ready()
    assert pod.model().reason == ""


def test_a_missing_bucket_then_made(store: Store, pod: Pod, magika_onnx: Path) -> None:
    pod.write_secret(store.secret)
    pod.write_manifest(_model("s3://not-made-yet/m"))
    pod.start()
    assert "'not-made-yet' does not exist" in pod.until_reason("BucketNotFound").message
    store.put("not-made-yet", {"m/model.onnx": magika_onnx})
    pod.until_ready()


def test_an_empty_prefix_then_filled(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("empty", {"other/file": b"x"})
    pod.write_secret(store.secret)
    pod.write_manifest(_model("s3://empty/m"))
    pod.start()
    assert "s3://empty/m holds no files" in pod.until_reason("Empty").message
    store.put("empty", {"m/model.onnx": magika_onnx})
    pod.until_ready()


def test_not_a_model_then_one(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("docs", {"m/README.md": b"hello", "m/weights.safetensors": b"1234"})
    pod.write_secret(store.secret)
    pod.write_manifest(_model("s3://docs/m"))
    pod.start()
    message = pod.until_reason("NotAModel").message
    assert "README.md, weights.safetensors" in message
    assert "one .onnx file" in message
    store.put("docs", {"m/model.onnx": magika_onnx})
    pod.until_ready()


def test_a_load_that_fails_is_tried_again_when_the_model_is_replaced(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("models", {"fixed/model.onnx": b"not yet"})
    pod.write_secret(store.secret)
    pod.write_manifest(_model("s3://models/fixed"))
    pod.start()
    pod.until_reason("LoadFailed")
    store.put("models", {"fixed/model.onnx": magika_onnx})
    pod.until_ready()


@pytest.mark.parametrize(
    ("change", "reason", "part"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Unreachable", "http://127.0.0.1:1"),
        ({"AWS_ALLOW_HTTP": "false"}, "InsecureEndpoint", "AWS_ALLOW_HTTP=true"),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, "AccessDenied", "InvalidAccessKeyId"),
        ({"AWS_ENDPOINT_URL": "store:8333"}, "InvalidSecret", "Write https://store:8333"),
        ({"AWS_REGION": " "}, "InvalidSecret", "AWS_REGION in the storage Secret is empty"),
    ],
)
def test_a_wrong_secret_is_named(store: Store, pod: Pod, change: dict[str, str], reason: str, part: str) -> None:
    pod.write_secret({**store.secret, **change})
    pod.write_manifest(_model("s3://models/any"))
    pod.start_agent()
    assert part in pod.until_reason(reason).message


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp://host/m", "Unsupported"),
        ("https://127.0.0.1/m.zip", "Unsupported"),
        ("pvc://claim/../../secret", "UnsafePath"),
        ("pvc://claim/none", "NotFound"),
    ],
)
def test_a_wrong_uri_is_named(pod: Pod, uri: str, reason: str) -> None:
    (pod.root / "pvc" / "claim").mkdir(parents=True)
    pod.write_manifest(_model(uri))
    pod.start_agent()
    assert uri in pod.until_reason(reason).message


def test_a_link_out_of_the_claim_is_refused(pod: Pod) -> None:
    folder = pod.root / "pvc" / "claim" / "m"
    folder.mkdir(parents=True)
    secret = pod.root / "secret.onnx"
    secret.write_bytes(b"secret")
    (folder / "model.onnx").symlink_to(secret)
    pod.write_manifest(_model("pvc://claim/m"))
    pod.start_agent()
    assert "outside of its root" in pod.until_reason("UnsafePath").message
    assert not any(path.name == "model.onnx" for path in pod.downloads.rglob("*"))


def test_a_model_that_is_larger_than_allowed(store: Store, pod: Pod, magika_onnx: Path) -> None:
    store.put("models", {"large/model.onnx": magika_onnx})
    pod.write_secret(store.secret)
    pod.write_manifest(_model("s3://models/large"))
    pod.start_agent("--max-bytes=1000")
    assert "up to 1000" in pod.until_reason("TooLarge").message


def test_a_manifest_that_cannot_be_read_is_named(pod: Pod) -> None:
    pod.start_agent()
    assert pod.report.reason == "ManifestMissing"
    (pod.root / "manifest").mkdir()
    (pod.root / "manifest" / "manifest.json").write_text('{"models": 3}')
    until(lambda: pod.report.reason == "InvalidManifest", "the manifest is refused")
