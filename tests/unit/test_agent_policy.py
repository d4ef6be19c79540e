"""The signature policy of a namespace: what the agent takes and refuses, beside the checks of the user."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from conch_agent.policy import read_policy
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.warmup.folder import fetch_requests
from conch_contract import ModelSource, Signature, SignaturePolicy, Verification, Warmup
from tests.support import bundles, signing

ADMIN, USER = bundles.make_key(), bundles.make_key()
POLICY = SignaturePolicy.build("prod", {"admin.pub": bundles.write_public(ADMIN)})
REQUEST = '{"inputs": []}'


def _compute_id(key: bundles.PrivateKey) -> str:
    return f"sha256:{hashlib.sha256(bundles.write_public(key).encode()).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    files = {"config.pbtxt": 'backend: "python"', "1/model.py": "class Model: ...", "requests/a.json": REQUEST}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    for each in (settings.repository, settings.downloads, settings.trust / "team", settings.policy.parent):
        each.mkdir(parents=True)
    (settings.trust / "team" / "key.pub").write_text(bundles.write_public(USER))
    return settings


def _write(settings: Settings, policy: SignaturePolicy) -> None:
    settings.policy.write_text(policy.to_json())


def _move(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def _source(folder: Path, verify: Verification | None = None, **fields: object) -> ModelSource:
    source = ModelSource(name="m", format="triton", storage_uri=f"file://{folder}", verify=verify)
    return source.model_copy(update=fields)


async def _prepare(source: ModelSource, settings: Settings) -> RepositoryModel:
    return await Preparation(source, settings).prepare(None)


async def _refusal(source: ModelSource, settings: Settings) -> Failure:
    with pytest.raises(Failure) as raised:
        await _prepare(source, settings)
    assert not list(settings.repository.iterdir()), "nothing of it reaches Triton"
    return raised.value


async def test_a_model_without_checks_of_its_own_needs_the_signature_of_the_policy(
    folder: Path, settings: Settings
) -> None:
    _write(settings, POLICY)
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.SIGNATURE_MISSING
    assert "has no file model.sig, and the signature policy 'prod' of the namespace needs a signature." in str(failure)
    signing.sign_folder(folder, ADMIN)
    model = await _prepare(_source(folder), settings)
    assert (model.verified, model.policy) == ((f"SignaturePolicy:{POLICY.version}",), POLICY.version)
    assert model.signer == _compute_id(ADMIN)


async def test_a_key_of_the_user_does_not_replace_the_policys(folder: Path, settings: Settings) -> None:
    _write(settings, POLICY)
    signing.sign_folder(folder, USER)
    verify = Verification(signature=Signature(config_map="team"))
    failure = await _refusal(_source(folder, verify), settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f"the signature policy 'prod' has the keys {_compute_id(ADMIN)}" in failure.message


async def test_both_signatures_are_needed_where_the_user_requires_one_too(folder: Path, settings: Settings) -> None:
    _write(settings, POLICY)
    signing.sign_folder(folder, USER)
    _move(folder / "model.sig", "user.sig")
    verify = Verification(signature=Signature(config_map="team", path="user.sig"))
    assert (await _refusal(_source(folder, verify), settings)).reason == Reason.SIGNATURE_MISSING
    signing.sign_folder(folder, ADMIN, ignored=["user.sig"])
    model = await _prepare(_source(folder, verify), settings)
    assert model.verified == ("Signature", POLICY.check)
    assert model.signer == f"{_compute_id(USER)}; {_compute_id(ADMIN)}"
    laid = {path.relative_to(settings.repository / "m").as_posix() for path in (settings.repository / "m").rglob("*")}
    assert "1/model.py" in laid
    assert not {name for name in laid if name.endswith(".sig")}


async def test_a_file_that_the_user_names_as_signature_is_not_served_without_the_policys(
    folder: Path, settings: Settings
) -> None:
    """A signature of the user is no file of the model; a program under its name is refused by the user's own check."""
    _write(settings, POLICY)
    signing.sign_folder(folder, ADMIN)
    (folder / "1" / "evil.py").write_text("evil")
    verify = Verification(signature=Signature(config_map="team", path="1/evil.py"))
    assert (await _refusal(_source(folder, verify), settings)).reason == Reason.INVALID_SIGNATURE
    assert "not signed: 1/evil.py" in (await _refusal(_source(folder), settings)).message


async def test_the_policy_has_the_name_of_its_signature(folder: Path, settings: Settings) -> None:
    signing.sign_folder(folder, ADMIN)
    _move(folder / "model.sig", "release.sig")
    _write(settings, SignaturePolicy.build("prod", POLICY.trusted, "release.sig"))
    assert (await _prepare(_source(folder), settings)).signer == _compute_id(ADMIN)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (SignaturePolicy(name="prod", problem="The ConfigMap is missing.").to_json(), "The ConfigMap is missing."),
        (SignaturePolicy(name="prod").to_json(), "The signature policy 'prod' has no keys."),
        (SignaturePolicy(name="prod", version="0").to_json(), "The signature policy 'prod' has no keys."),
        ("{", "policy.json cannot be read"),
        ("[]", "policy.json cannot be read"),
        ("", "policy.json cannot be read"),
    ],
)
async def test_a_policy_that_cannot_be_read_lets_nothing_pass(
    folder: Path, settings: Settings, content: str, named: str
) -> None:
    signing.sign_folder(folder, ADMIN)
    settings.policy.write_text(content)
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.POLICY_UNREADABLE
    assert named in failure.message
    assert failure.message.endswith("no model is loaded until the policy can be read.")


async def test_a_key_of_the_policy_that_is_none(folder: Path, settings: Settings) -> None:
    signing.sign_folder(folder, ADMIN)
    _write(settings, SignaturePolicy.build("prod", {"key.pub": "no key"}))
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.INVALID_KEY
    assert failure.message.startswith("key.pub of the signature policy 'prod' is not a key to trust")


async def test_what_is_laid_out_is_verified_again_by_a_policy_that_has_changed(
    folder: Path, settings: Settings
) -> None:
    preparation = Preparation(_source(folder), settings)
    before = await preparation.prepare(None)
    assert before.policy == ""
    _write(settings, POLICY)
    with pytest.raises(Failure) as raised:
        await preparation.prepare(before)
    assert raised.value.reason == Reason.SIGNATURE_MISSING
    signing.sign_folder(folder, ADMIN)
    signed = await preparation.prepare(before)
    assert signed.policy == POLICY.version
    assert await preparation.prepare(signed) is signed
    settings.policy.unlink()
    assert await preparation.prepare(signed) is signed, "without a policy every model passes"


async def test_a_source_that_is_away_lets_nothing_unverified_pass(folder: Path, settings: Settings) -> None:
    preparation = Preparation(_source(folder), settings)
    before = await preparation.prepare(None)
    _move(folder, "away")
    assert await preparation.prepare(before) is before
    _write(settings, POLICY)
    with pytest.raises(Failure):
        await preparation.prepare(before)


async def test_a_content_that_the_revision_has_pinned_is_verified_too(folder: Path, settings: Settings) -> None:
    before = await _prepare(_source(folder), settings)
    _write(settings, POLICY)
    preparation = Preparation(_source(folder), settings)
    preparation.pin(_source(folder, digest=before.digest))
    with pytest.raises(Failure) as raised:
        await preparation.prepare(before)
    assert raised.value.reason == Reason.SIGNATURE_MISSING


def _name_files(folder: Path) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.json")}


async def test_the_requests_of_a_job_are_signed(folder: Path, settings: Settings, tmp_path: Path) -> None:
    source = _source(folder, warmup=Warmup(path="requests"))
    assert _name_files(await fetch_requests(source, settings, tmp_path / "first")) == {"a.json": REQUEST}
    _write(settings, POLICY)
    with pytest.raises(Failure) as raised:
        await fetch_requests(source, settings, tmp_path / "second")
    assert raised.value.reason == Reason.SIGNATURE_MISSING
    signing.sign_folder(folder, ADMIN)
    assert _name_files(await fetch_requests(source, settings, tmp_path / "third")) == {"a.json": REQUEST}
    (folder / "requests" / "a.json").write_text("{}")
    with pytest.raises(Failure) as raised:
        await fetch_requests(source, settings, tmp_path / "fourth")
    assert raised.value.reason == Reason.NOT_SIGNED


async def test_the_requests_of_a_job_have_the_signature_of_the_user(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    verify = Verification(signature=Signature(config_map="team"))
    source = _source(folder, verify, warmup=Warmup(path="requests"))
    with pytest.raises(Failure) as raised:
        await fetch_requests(source, settings, tmp_path / "first")
    assert raised.value.reason == Reason.SIGNATURE_MISSING
    signing.sign_folder(folder, USER)
    assert _name_files(await fetch_requests(source, settings, tmp_path / "second")) == {"a.json": REQUEST}


def test_a_version_is_that_of_keys_and_path() -> None:
    keys = dict(POLICY.trusted)
    assert SignaturePolicy.build("other name", keys).version == POLICY.version
    assert SignaturePolicy.build("prod", {**keys, "b.pub": ""}).version != POLICY.version
    assert SignaturePolicy.build("prod", keys, "other.sig").version != POLICY.version


def test_a_pod_without_a_policy_has_none(settings: Settings) -> None:
    assert read_policy(settings) is None
    _write(settings, POLICY)
    assert read_policy(settings) == POLICY
