"""Content that is meant, and content that is signed, in a pod: what does not pass never reaches Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_contract import ModelSource, Signature, SignaturePolicy, Verification
from conch_contract.report import Origin
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support import bundles, signing
from tests.support.relay import Relay
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


async def test_the_last_files_of_a_store_that_is_away_need_the_signature(
    store: Store, pod: Pod, tmp_path: Path
) -> None:
    """The files of the cache pass the checks of any fetch: another key than that of the fetch does not verify them."""
    files = _write(tmp_path / "signed", 2)
    store.put("models", {f"last/{path}": content for path, content in files.items()})
    line = Relay(store.port)
    pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    pod.mount_keys("team", {"key.pub": bundles.write_public(KEY)})
    pod.mount_keys("others", {"key.pub": bundles.write_public(bundles.make_key())})
    (pod.root / "cache").symlink_to(tmp_path)
    settings = Settings(root=pod.root)
    settings.repository.mkdir(parents=True)
    settings.downloads.mkdir(parents=True)

    async def prepare(config_map: str) -> RepositoryModel:
        verify = Verification(signature=Signature(config_map=config_map))
        source = ModelSource(name="m", format="python", storage_uri="s3://models/last", verify=verify)
        return await Preparation(source, settings).prepare(None)

    assert (await prepare("team")).origin == Origin.STORAGE
    line.refuses = True
    model = await prepare("team")
    assert (model.origin, model.verified) == (Origin.CACHE, ("Signature",))
    with pytest.raises(Failure) as raised:
        await prepare("others")
    assert raised.value.reason == Reason.UNREACHABLE
    line.close()
