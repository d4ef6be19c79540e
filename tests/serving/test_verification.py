"""Content that is meant, and content that is signed, in a pod: what does not pass never reaches Triton."""

from __future__ import annotations

from pathlib import Path

from conch_contract import ModelSource, Signature, SignaturePolicy, Verification
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support import bundles, signing
from tests.support.wait import until

KEY = bundles.make_key()


def _write(folder: Path, factor: int) -> dict[str, bytes | Path]:
    """Write a model, sign it, and return its files."""
    folder.mkdir()
    (folder / "model.py").write_text(DOUBLE)
    (folder / "factor.py").write_text(f"FACTOR = {factor}")
    signing.sign_folder(folder, KEY)
    return {path.name: path for path in folder.iterdir()}


def test_a_pod_serves_signed_content_alone(store: Store, pod: Pod, tmp_path: Path) -> None:
    first, second = _write(tmp_path / "first", 2), _write(tmp_path / "second", 3)
    mixed = {"model.sig": first["model.sig"], "model.py": first["model.py"], "factor.py": second["factor.py"]}
    for name, files in {"first": first, "second": second, "mixed": mixed}.items():
        store.put("models", {f"signed/{name}/{path}": content for path, content in files.items()})
    pod.write_secret(store.secret)
    pod.mount_keys("team", {"key.pub": bundles.write_public(KEY)})
    verify = Verification(signature=Signature(config_map="team"))

    def serve(name: str, digest: str = "") -> None:
        checks = verify.model_copy(update={"digest": digest})
        pod.write_manifest(
            ModelSource(name="m", format="python", storage_uri=f"s3://models/signed/{name}", verify=checks)
        )

    serve("first")
    pod.start()
    pod.until_ready()
    report = pod.until_reported()
    assert report.verified == ("Signature",)
    assert report.signer.startswith("sha256:")
    assert pod.infer("m", X)["y"] == [3.0, 4.0]

    serve("mixed")
    assert "other contents than the signed ones: factor.py" in pod.until_reason("NotSigned").message
    serve("second", report.digest)
    assert f"and storage.verify.digest is {report.digest}" in pod.until_reason("DigestMismatch").message
    assert pod.infer("m", X)["y"] == [3.0, 4.0], "Triton serves what passed"

    serve("second")
    until(lambda: pod.infer("m", X)["y"] == [4.5, 6.0], "Triton serves the second content")
    assert pod.model().verified == ("Signature",)


def test_a_triton_that_starts_again_loads_nothing_that_lacks_the_signature_of_a_new_policy(
    store: Store, pod: Pod, tmp_path: Path
) -> None:
    """What serves stays; a load, of whatever revision, needs the policy in force, also after it has changed."""
    files = _write(tmp_path / "model", 2)
    store.put("models", {f"policy/{path}": content for path, content in files.items()})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="s3://models/policy"))
    pod.start()
    pod.until_ready()
    assert pod.until_reported().verified == ()

    pod.write_policy(SignaturePolicy.build("prod", {"key.pub": bundles.write_public(bundles.make_key())}))
    assert pod.triton is not None
    assert pod.agent is not None
    pod.agent.stop()
    pod.start_agent()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0], "Triton serves what it loaded before"

    pod.triton.stop()
    pod.start_triton()
    assert "the signature policy 'prod' has the keys" in pod.until_reason("InvalidSignature").message
    assert not pod.ready

    policy = SignaturePolicy.build("prod", {"key.pub": bundles.write_public(KEY)})
    pod.write_policy(policy)
    pod.until_ready()
    assert pod.until_reported().verified == (policy.check,)
    assert pod.infer("m", X)["y"] == [3.0, 4.0]

    pod.write_policy(SignaturePolicy(name="prod", problem="The ConfigMap is missing."))
    pod.triton.stop()
    pod.start_triton()
    assert "The ConfigMap is missing." in pod.until_reason("SignaturePolicyUnreadable").message
