"""A model that is packed, encrypted, signed and uploaded by `kubectl conch model`, up to an answer of Triton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyrage import x25519

from conch_contract import Decryption, ModelSource, Signature, Verification
from tests.serving.pod import Pod
from tests.serving.registry import Registry
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support import bundles
from tests.support.plugin import PluginError, run_plugin

KEY, IDENTITY = bundles.make_key(), x25519.Identity.generate()


@dataclass(frozen=True)
class Target:
    """A place for the model, the variables of the plugin for it, and the storage Secret of pods."""

    uri: str
    environment: dict[str, str]
    secret: dict[str, str]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(params=["s3", "oci", "http"])
def target(request: pytest.FixtureRequest, store: Store, registry: Registry) -> Target:
    if request.param == "s3":
        return Target("s3://pushes/pushed", store.secret, store.secret)
    if request.param == "oci":
        plain = {"OCI_PLAIN_HTTP": "true"}
        return Target(f"oci://{registry.host}/team/pushed:v1", plain, plain)
    return Target(f"{store.files}/pushed/model.tar.zst", {}, {})


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """The folder of a model that is packed, encrypted and signed."""
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.py").write_text(DOUBLE)
    (plain / "factor.py").write_text("FACTOR = 2")
    (tmp_path / "key").write_bytes(bundles.write_private(KEY))
    run_plugin("model", "pack", plain, "--to", tmp_path / "packed", "--version", "7", "--author", "team")
    recipient = str(IDENTITY.to_public())
    run_plugin("model", "encrypt", tmp_path / "packed", "--to", tmp_path / "model", "--recipient", recipient)
    run_plugin("model", "sign", tmp_path / "model", "--key", tmp_path / "key")
    return tmp_path / "model"


def _push(folder: Path, target: Target) -> tuple[dict[str, list[str]], str]:
    """Upload the folder, or its archive to a URL; return what was sent, and the digest."""
    source = folder
    if target.uri.startswith("http"):
        source = folder.parent / "model.tar.zst"
        run_plugin("model", "pack", folder, "--to", source)
    value = run_plugin("model", "push", source, target.uri, environment=target.environment)
    return value, value["digest"]


def test_a_protected_model_is_pushed_and_served(protected: Path, target: Target, pod: Pod) -> None:
    pushed, digest = _push(protected, target)
    assert pushed["sent"]
    assert not pushed["present"]
    again, _ = _push(protected, target)
    assert (again["sent"], again["present"]) == ([], pushed["sent"])

    seen = run_plugin("model", "inspect", target.uri, environment=target.environment)
    expected = {"model.tar.zst"} if "http" in target.uri else {"factor.py.age", "model.py.age", "model.sig"}
    assert {file["path"] for file in seen["files"]} == expected
    assert seen.get("version") == (None if "http" in target.uri else "7")

    pod.write_secret(target.secret)
    pod.mount_keys("team", {"key.pub": bundles.write_public(KEY)})
    pod.mount_identities("identity", {"key.txt": str(IDENTITY)})
    verify = Verification(digest=digest, signature=Signature(config_map="team"))
    source = ModelSource(
        name="m",
        format="python",
        storage_uri=target.uri,
        verify=verify,
        decrypt=Decryption(secret="identity"),
    )
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    report = pod.until_reported()
    assert (report.digest, report.verified) == (digest, ("Digest", "Signature"))
    assert pod.infer("m", X)["y"] == [3.0, 4.0]

    pod.mount_identities("other", {"key.txt": str(x25519.Identity.generate())})
    pod.write_manifest(source.model_copy(update={"decrypt": Decryption(secret="other")}))
    assert "is encrypted for other keys" in pod.until_reason("DecryptionFailed").message
    assert pod.infer("m", X)["y"] == [3.0, 4.0], "Triton serves what was decrypted"


@pytest.mark.parametrize("scheme", ["s3", "oci"])
def test_a_push_sends_what_the_target_lacks(scheme: str, store: Store, registry: Registry, tmp_path: Path) -> None:
    environment = store.secret if scheme == "s3" else {"OCI_PLAIN_HTTP": "true"}
    uri = "s3://pushes/again" if scheme == "s3" else f"oci://{registry.host}/team/again:v1"
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.py").write_text(DOUBLE)
    (plain / "weights.bin").write_bytes(os.urandom(20_000_000))  # more than a part of an upload

    def push(name: str) -> tuple[list[str], list[str]]:
        run_plugin("model", "pack", plain, "--to", tmp_path / name)
        value = run_plugin("model", "push", tmp_path / name, uri, environment=environment)
        return value["sent"], value["present"]

    assert push("first") == ([".conch-manifest.json", "model.py", "weights.bin"], [])
    (plain / "model.py").write_text(f"{DOUBLE}# changed\n")
    assert push("second") == ([".conch-manifest.json", "model.py"], ["weights.bin"])


def test_a_target_that_refuses(protected: Path, store: Store, registry: Registry) -> None:
    with pytest.raises(PluginError, match="expected s3://, oci://, https:// or http://"):
        run_plugin("model", "push", protected, "ftp://host/x")
    with pytest.raises(PluginError, match="is a folder, and an agent reads one file of a URL"):
        run_plugin("model", "push", protected, f"{store.files}/x.tar.zst")
    wrong = {**store.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(PluginError, match="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"):
        run_plugin("model", "push", protected, "s3://pushes/refused", environment=wrong)
    with pytest.raises(PluginError, match="expected a tag, and no digest or path"):
        run_plugin("model", "push", protected, f"oci://{registry.host}/a@sha256:{'0' * 64}")
