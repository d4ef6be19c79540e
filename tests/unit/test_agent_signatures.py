"""Folders that the library of OpenSSF Model Signing has signed, and others, as the agent takes or refuses them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from model_signing import hashing

from conch_agent.expansion import list_models
from conch_agent.layout import SERVED
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.warmup.requests import read_folder
from conch_contract import ModelSource, Signature, Verification, Warmup
from tests.support import bundles, examples, filetypes, signing
from tests.support.sigstore_instance import Instance

KEY = bundles.make_key()
ID = f"sha256:{hashlib.sha256(bundles.write_public(KEY).encode()).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and files that are no part of one."""
    folder = tmp_path / "model"
    files = ("config.pbtxt", "1/model.py", "1/größe 'a'.txt", ".cache/of-a-tool", "README.md")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('backend: "python"' if name == "config.pbtxt" else name)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    for each in (settings.repository, settings.downloads, settings.trust / "team"):
        each.mkdir(parents=True)
    (settings.trust / "team" / "key.pub").write_text(bundles.write_public(KEY))
    return settings


def _source(folder: Path, path: str = signing.SIGNATURE) -> ModelSource:
    verify = Verification(signature=Signature(config_map="team", path=path))
    return ModelSource(name="m", format="triton", storage_uri=f"file://{folder}", verify=verify)


async def _prepare(folder: Path, settings: Settings, path: str = signing.SIGNATURE) -> RepositoryModel:
    return await Preparation(_source(folder, path), settings).prepare(None)


async def _refusal(folder: Path, settings: Settings, path: str = signing.SIGNATURE) -> Failure:
    with pytest.raises(Failure) as raised:
        await _prepare(folder, settings, path)
    assert not list(settings.repository.iterdir()), "nothing of it reaches Triton"
    assert raised.value.reason == Reason.KEY_MISSING or raised.value.message.startswith(
        (f"file://{folder}", "key.pub of the ConfigMap", "The ConfigMap 'team' has identity")
    )
    return raised.value


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
async def test_what_the_library_has_signed_is_laid_out(folder: Path, settings: Settings, curve: Any) -> None:
    key = bundles.make_key(curve)
    public = bundles.write_public(key)
    (settings.trust / "team" / "key.pub").write_text(public)
    signing.sign_folder(folder, key, ignored=["README.md"])
    model = await _prepare(folder, settings)
    assert model.verified == ("Signature",)
    assert model.signer == f"sha256:{hashlib.sha256(public.encode()).hexdigest()}", "as sha256sum key.pub prints it"
    laid = {path.relative_to(settings.repository / "m").as_posix() for path in (settings.repository / "m").rglob("*")}
    assert laid == {".conch.json", "config.pbtxt", "1", "1/model.py", "1/größe 'a'.txt"}


async def test_a_signature_by_the_command_line_under_another_name(folder: Path, settings: Settings) -> None:
    private = folder.parent / "key"
    private.write_bytes(bundles.write_private(KEY))
    path = folder / "signatures" / "team.sig"
    path.parent.mkdir()
    _run("-m", "model_signing", "sign", "key", folder, "--private_key", private, "--signature", path)
    assert (await _prepare(folder, settings, "signatures/team.sig")).signer == ID


async def test_one_of_several_trusted_keys_is_enough(folder: Path, settings: Settings) -> None:
    (settings.trust / "team" / "a.pub").write_text(bundles.write_public(bundles.make_key()))
    signing.sign_folder(folder, KEY)
    bundle = json.loads((folder / signing.SIGNATURE).read_text())
    assert (await _prepare(folder, settings)).signer == ID
    del bundle["verificationMaterial"]["publicKey"]["hint"]  # as model_signing 1.0 wrote it
    (folder / signing.SIGNATURE).write_text(json.dumps(bundle))
    assert (await _prepare(folder, settings)).signer == ID


async def test_a_folder_without_a_signature(folder: Path, settings: Settings) -> None:
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.SIGNATURE_MISSING
    assert failure.message.startswith(f"file://{folder} has no file model.sig, and storage.verify.signature needs")


async def test_the_signature_of_another_key(folder: Path, settings: Settings) -> None:
    other = bundles.make_key()
    signing.sign_folder(folder, other)
    failure = await _refusal(folder, settings)
    hint = hashlib.sha256(bundles.write_public(other).encode()).hexdigest()
    assert failure.reason == Reason.INVALID_SIGNATURE
    both = f"model.sig is signed with another key (sha256:{hint}): the ConfigMap 'team' has the keys {ID}."
    assert failure.message.startswith(f"file://{folder}: {both}")


def _write(name: str, text: str = "other") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


# A change of a signed folder, and what the message names; the library takes and refuses the same.
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda _: None, ""),
    "a hidden file of a tool": (_write(".gitattributes"), ""),
    "another content": (_write("1/model.py"), "other contents than the signed ones: 1/model.py."),
    "another config": (
        _write("config.pbtxt", 'backend: "other"'),
        "other contents than the signed ones: config.pbtxt.",
    ),
    "another file": (_write("1/evil.py"), "has files that are not signed: 1/evil.py."),
    "a missing file": (lambda folder: (folder / "1" / "model.py").unlink(), "lacks files that are signed: 1/model.py."),
    "another name": (
        lambda folder: (folder / "README.md").rename(folder / "1" / "README.md"),
        "has files that are not signed: 1/README.md.",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_changed_after_it_was_signed(folder: Path, settings: Settings, change: str) -> None:
    signing.sign_folder(folder, KEY)
    make, named = CHANGES[change]
    make(folder)
    assert signing.is_accepted(folder, KEY) == (not named)
    if not named:
        assert (await _prepare(folder, settings)).verified == ("Signature",)
        return
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.NOT_SIGNED
    assert named in failure.message


async def test_a_file_that_the_signer_left_out_is_not_for_triton(folder: Path, settings: Settings) -> None:
    """The store can write anything there, such as a configuration by which Triton runs another program."""
    signing.sign_folder(folder, KEY, ignored=["config.pbtxt", "extra"])
    (folder / "config.pbtxt").write_text('backend: "evil"')
    (folder / "extra").mkdir()
    (folder / "extra" / "model.py").write_text("evil")
    assert signing.is_accepted(folder, KEY)
    await _prepare(folder, settings)
    laid = settings.repository / "m"
    assert "evil" not in (laid / "config.pbtxt").read_text()
    assert not (laid / "extra").exists()


def _read_warmup(settings: Settings) -> dict[str, bytes]:
    requests = read_folder(Warmup(path="requests"), "file:///m", settings.downloads / "m" / SERVED)
    return {request.label: request.content for request in requests}


async def test_a_warm_up_has_the_requests_of_what_is_served(folder: Path, settings: Settings) -> None:
    """Neither those that the signer left out, nor those of a later content that is refused."""
    requests = folder / "requests"
    requests.mkdir()
    (requests / "a.json").write_text("{}")
    signing.sign_folder(folder, KEY, ignored=["requests/evil.json"])
    (requests / "evil.json").write_text('{"inputs": [{"name": "evil"}]}')
    preparation = Preparation(_source(folder), settings)
    model = await preparation.prepare(None)
    served = _read_warmup(settings)
    assert list(served) == ["requests/a.json"]
    (requests / "a.json").unlink()
    (requests / "a.json").write_text('{"inputs": []}')
    with pytest.raises(Failure, match="other contents than the signed ones"):
        await preparation.prepare(model)
    assert _read_warmup(settings) == served
    assert Preparation(_source(folder), settings).find_existing() == model
    shutil.rmtree(settings.downloads / "m" / SERVED)
    assert Preparation(_source(folder), settings).find_existing() is None, "an agent was killed before it made it"


def _truncate(folder: Path) -> None:
    file = folder / signing.SIGNATURE
    file.write_bytes(file.read_bytes()[:-200])


def _grow(folder: Path) -> None:
    with (folder / signing.SIGNATURE).open("wb") as file:
        file.truncate(100_000_000)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "is not a signature: it is no JSON"),
    "100 MB": (_grow, "has over 33554432 bytes, and is no signature"),
    "empty": (lambda folder: (folder / signing.SIGNATURE).write_text(""), "it is no JSON"),
    "deep": (lambda folder: (folder / signing.SIGNATURE).write_text("[" * 9_000), "nested too deeply"),
    "many values": (
        lambda folder: (folder / signing.SIGNATURE).write_text(f"[{'[],' * 10_000}[]]"),
        "has over 10000 JSON values",
    ),
    "no object": (lambda folder: (folder / signing.SIGNATURE).write_text("7"), "is not a signature: "),
}


@pytest.mark.parametrize("change", BROKEN)
async def test_a_file_that_is_no_signature(folder: Path, settings: Settings, change: str) -> None:
    signing.sign_folder(folder, KEY)
    make, named = BROKEN[change]
    make(folder)
    assert not signing.is_accepted(folder, KEY)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f": {signing.SIGNATURE} " in failure.message
    assert named in failure.message


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a change of a field of a JSON object."""

    def change(root: Any) -> None:
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
        for part in parents:
            root = root[part]
        root[last] = value

    return change


BUNDLES = {
    "media type": (_set("mediaType", "application/x"), "has the media type 'application/x'"),
    "payload type": (_set("dsseEnvelope.payloadType", "text/plain"), "has a payload of 'text/plain'"),
    "no envelope": (_set("dsseEnvelope", None), "dsseEnvelope: "),
    "two signatures": (_set("dsseEnvelope.signatures", [{"sig": "AA=="}] * 2), "dsseEnvelope.signatures: "),
    "no signature": (_set("dsseEnvelope.signatures", []), "dsseEnvelope.signatures: "),
    "no base64": (_set("dsseEnvelope.payload", "%"), "dsseEnvelope.payload: "),
    "a number": (_set("dsseEnvelope.payload", 1), "dsseEnvelope.payload: "),
    "other bytes": (_set("dsseEnvelope.payload", "e30="), "does not have the signature of its key: it was changed"),
    "another signature": (_set("dsseEnvelope.signatures.0.sig", "AAAA"), "it was changed"),
    "no signer": (_set("verificationMaterial", {"tlogEntries": []}), "has neither the id of a key nor a certificate"),
    "an identity": (
        _set("verificationMaterial", {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}),
        "is signed by an identity, and the ConfigMap 'team' has none",
    ),
    "no certificate": (
        _set("verificationMaterial", {"x509CertificateChain": {"certificates": [{"rawBytes": "AA=="}]}}),
        "has a certificate that cannot be used",
    ),
}


@pytest.mark.parametrize("change", BUNDLES)
async def test_a_bundle_that_the_library_does_not_write(folder: Path, settings: Settings, change: str) -> None:
    signing.sign_folder(folder, KEY)
    make, named = BUNDLES[change]
    bundle = json.loads((folder / signing.SIGNATURE).read_text())
    make(bundle)
    (folder / signing.SIGNATURE).write_text(json.dumps(bundle))
    if change not in {"no signature", "two signatures"}:  # an error in the library, and its first one counts
        assert not signing.is_accepted(folder, KEY)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert named in failure.message


STATEMENTS = {
    "another statement": (_set("_type", "https://in-toto.io/Statement/v0.1"), "is expected"),
    "another predicate": (_set("predicateType", "https://slsa.dev/provenance/v1"), "signs a 'https://slsa.dev/prov"),
    "no predicate": (_set("predicate", {}), "is not a signature of a model: predicate."),
    "two subjects": (_set("subject", [{"digest": {"sha256": "0" * 64}}] * 2), "subject: "),
    "another root": (_set("subject.0.digest.sha256", "0" * 64), "that is not that of their digests"),
    "no digest": (_set("predicate.resources.0.digest", "x" * 64), "that is not that of their digests"),
    "another algorithm": (_set("predicate.resources.0.algorithm", "md5"), "has digests of 'files' with md5, sha256"),
    "another method": (_set("predicate.serialization.method", "shards"), "has digests of 'shards' with sha256"),
    "one file twice": (_set("predicate.resources.0.name", "1/./model.py"), "has two digests of one file"),
}


@pytest.mark.parametrize("change", STATEMENTS)
async def test_a_signed_statement_that_is_not_of_a_model(folder: Path, settings: Settings, change: str) -> None:
    signing.sign_folder(folder, KEY)
    make, named = STATEMENTS[change]
    statement = bundles.open_bundle(json.loads((folder / signing.SIGNATURE).read_text()))
    make(statement)
    (folder / signing.SIGNATURE).write_text(json.dumps(bundles.seal(statement, KEY)))
    assert not signing.is_accepted(folder, KEY)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert named in failure.message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake2"), "'files' with blake2b"),
        (lambda: hashing.Config().use_shard_serialization(shard_size=1_000), "'shards' with sha256"),
    ],
    ids=["blake2b", "shards"],
)
async def test_digests_of_the_library_that_are_not_of_whole_files_by_sha256(
    folder: Path, settings: Settings, config: Callable[[], hashing.Config], named: str
) -> None:
    signing.sign_folder(folder, KEY, config=config())
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert named in failure.message


@pytest.mark.parametrize(
    "text",
    [
        bundles.write_public(ec.generate_private_key(ec.SECP256K1())),
        bundles.write_public(rsa.generate_private_key(65537, 2048)),
        bundles.write_public(ed25519.Ed25519PrivateKey.generate()),
        bundles.write_private(KEY).decode(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "key",
    ],
    ids=["secp256k1", "RSA", "Ed25519", "a private key", "no key", "no certificate", "text"],
)
async def test_a_key_that_is_none_to_trust(folder: Path, settings: Settings, text: str) -> None:
    (settings.trust / "team" / "key.pub").write_text(text)
    signing.sign_folder(folder, KEY)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_KEY
    assert failure.message.startswith("key.pub of the ConfigMap 'team' is not a key to trust: ")
    assert "PRIVATE" not in failure.message


async def test_a_config_map_that_does_not_exist(folder: Path, settings: Settings) -> None:
    (settings.trust / "team" / "key.pub").unlink()
    signing.sign_folder(folder, KEY)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.KEY_MISSING
    assert "kubectl create configmap team --from-file=key.pub" in failure.message


class Authority:
    """A root, an intermediate certificate, and certificates of those who sign models."""

    def __init__(self) -> None:
        self._key, self._between = bundles.make_key(), bundles.make_key()
        self.root = bundles.make_certificate("Root", self._key, is_authority=True)
        self.between = self.make_between()

    def make_between(self, purposes: Sequence[Any] = ()) -> Any:
        """Return the certificate of the authority between root and signers.

        Args:
            purposes: Its extendedKeyUsage; none: it may issue certificates for all purposes.
        """
        issuer = (self.root, self._key)
        return bundles.make_certificate("Models", self._between, issuer, is_authority=True, purposes=purposes)

    def issue(self, **options: Any) -> tuple[bundles.PrivateKey, tuple[Any, ...]]:
        """Return a key with its chain, without the root."""
        key = bundles.make_key()
        return key, (bundles.make_certificate("Team", key, (self.between, self._between), **options), self.between)


@pytest.fixture
def authority(settings: Settings) -> Authority:
    authority = Authority()
    (settings.trust / "team" / "key.pub").write_text(bundles.write_certificates([authority.root]))
    return authority


async def test_a_certificate_of_a_trusted_root(folder: Path, settings: Settings, authority: Authority) -> None:
    key, chain = authority.issue()
    signing.sign_folder(folder, key, chain)
    assert signing.is_accepted(folder, authority.root)
    model = await _prepare(folder, settings)
    assert model.verified == ("Signature",)
    assert model.signer.startswith("CN=Team (sha256:")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"days": (-30, -1)}, "that of CN=Team expired on 20"),
        ({"days": (1, 30)}, "that of CN=Team is not valid before 20"),
        ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "it is not for signatures"),
        ({"is_authority": True}, "it is not for signatures"),
    ],
    ids=["expired", "not valid yet", "of a server", "of an authority"],
)
async def test_a_certificate_that_may_not_sign(
    folder: Path, settings: Settings, authority: Authority, options: dict[str, Any], named: str
) -> None:
    key, chain = authority.issue(**options)
    signing.sign_folder(folder, key, chain)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f"model.sig is not signed by a trusted certificate: {named}" in failure.message


async def test_a_certificate_of_another_root(folder: Path, settings: Settings, authority: Authority) -> None:
    del authority
    key, chain = Authority().issue()
    signing.sign_folder(folder, key, chain)
    failure = await _refusal(folder, settings)
    assert "it does not lead to a root of the ConfigMap 'team' (CN=Root)" in failure.message


async def test_a_certificate_that_no_authority_has_signed(
    folder: Path, settings: Settings, authority: Authority
) -> None:
    """A holder of a certificate of the root could else issue certificates."""
    team, chain = authority.issue()
    key = bundles.make_key()
    forged = bundles.make_certificate("Team", key, (chain[0], team))
    signing.sign_folder(folder, key, (forged, *chain))
    failure = await _refusal(folder, settings)
    assert "it does not lead to a root" in failure.message


@pytest.mark.parametrize(
    ("purposes", "is_trusted"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
    ],
    ids=["servers", "servers and code", "any"],
)
async def test_an_authority_for_something_else_issues_no_certificates_of_signers(
    folder: Path, settings: Settings, authority: Authority, purposes: list[Any], is_trusted: bool
) -> None:
    authority.between = authority.make_between(purposes)
    signing.sign_folder(folder, *authority.issue())
    if is_trusted:
        assert (await _prepare(folder, settings)).verified == ("Signature",)
        return
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert "it does not lead to a root" in failure.message
    assert "is not for code" in failure.message


async def test_a_certificate_with_the_signature_of_another_key(
    folder: Path, settings: Settings, authority: Authority
) -> None:
    signing.sign_folder(folder, KEY)
    bundle = json.loads((folder / signing.SIGNATURE).read_text())
    signing.sign_folder(folder, *authority.issue())
    other = json.loads((folder / signing.SIGNATURE).read_text())
    bundle["verificationMaterial"] = other["verificationMaterial"]
    (folder / signing.SIGNATURE).write_text(json.dumps(bundle))
    failure = await _refusal(folder, settings)
    assert "does not have the signature of its certificate CN=Team: it was changed" in failure.message


async def test_certificates_need_a_root_and_keys_a_key(folder: Path, settings: Settings, authority: Authority) -> None:
    signing.sign_folder(folder, KEY)
    assert "the ConfigMap 'team' has no public key" in (await _refusal(folder, settings)).message
    (settings.trust / "team" / "key.pub").write_text(bundles.write_public(KEY))
    signing.sign_folder(folder, *authority.issue())
    assert "the ConfigMap 'team' has no root certificate" in (await _refusal(folder, settings)).message


TEAM, ISSUER = "team@example.com", "https://issuer.example"


def _sign_as(folder: Path, instance: Instance, identity: str = TEAM, issuer: str = ISSUER) -> None:
    """Sign a folder by an identity. The statement is that of the library."""
    signing.sign_folder(folder, KEY)
    file = folder / signing.SIGNATURE
    file.write_text(json.dumps(instance.sign(bundles.open_bundle(json.loads(file.read_text())), identity, issuer)))


@pytest.fixture
def instance(settings: Settings) -> Instance:
    """An instance of Sigstore, whose certificates have expired long ago: the time of a signature counts."""
    instance = Instance(age=timedelta(days=400))
    (settings.trust / "team" / "key.pub").unlink()
    for key, value in {"trusted_root.json": instance.write_trusted_root(), "identity": TEAM, "issuer": ISSUER}.items():
        (settings.trust / "team" / key).write_text(value + "\n")
    return instance


async def test_the_signature_of_a_trusted_identity(folder: Path, settings: Settings, instance: Instance) -> None:
    _sign_as(folder, instance)
    model = await _prepare(folder, settings)
    assert (model.verified, model.signer) == (("Signature",), f"{TEAM} ({ISSUER})")
    (folder / "1" / "model.py").write_text("other")
    with pytest.raises(Failure, match="with other contents than the signed ones"):
        await _prepare(folder, settings)


@pytest.mark.parametrize(
    "other", [("other@example.com", ISSUER), (TEAM, "https://other.example")], ids=["identity", "issuer"]
)
async def test_the_signature_of_another_identity(
    folder: Path, settings: Settings, instance: Instance, other: tuple[str, str]
) -> None:
    _sign_as(folder, instance, *other)
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f"is not a signature of {TEAM} ({ISSUER}): " in failure.message
    assert next(part for part in other if "other" in part) in failure.message


async def test_an_identity_of_another_instance(folder: Path, settings: Settings, instance: Instance) -> None:
    del instance
    _sign_as(folder, Instance())
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f"is not a signature of {TEAM} ({ISSUER}): " in failure.message


ENTRY = "verificationMaterial.tlogEntries.0"
FORGED: dict[str, Callable[[dict[str, Any]], None]] = {
    "no entry in the log": _set("verificationMaterial.tlogEntries", []),
    "another time": _set(f"{ENTRY}.integratedTime", "1700000000"),
    "no promise of the time": _set(f"{ENTRY}.inclusionPromise", None),
    "another entry": _set(f"{ENTRY}.canonicalizedBody", "e30="),
    "another state of the log": _set(f"{ENTRY}.inclusionProof.checkpoint.envelope", "a\n1\nAA==\n\n"),
    "another signature": _set("dsseEnvelope.signatures.0.sig", "AAAA"),
    "another payload": _set("dsseEnvelope.payload", "e30="),
    "no certificate": _set("verificationMaterial.certificate.rawBytes", "AAAA"),
}


@pytest.mark.parametrize("change", FORGED)
async def test_a_signature_of_an_identity_that_is_forged(
    folder: Path, settings: Settings, instance: Instance, change: str
) -> None:
    _sign_as(folder, instance)
    bundle = json.loads((folder / signing.SIGNATURE).read_text())
    FORGED[change](bundle)
    (folder / signing.SIGNATURE).write_text(json.dumps(bundle))
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_SIGNATURE
    assert f"is not a signature of {TEAM} ({ISSUER}): " in failure.message


async def test_an_identity_needs_its_issuer_and_the_root_of_its_instance(
    folder: Path, settings: Settings, instance: Instance
) -> None:
    _sign_as(folder, instance)
    (settings.trust / "team" / "trusted_root.json").write_text("{}")
    assert (await _refusal(folder, settings)).reason == Reason.INVALID_SIGNATURE
    (settings.trust / "team" / "issuer").unlink()
    failure = await _refusal(folder, settings)
    assert failure.reason == Reason.INVALID_KEY
    assert "has identity and trusted_root.json and lacks issuer. For signatures" in failure.message


async def test_a_model_in_the_only_folder_of_what_is_signed(folder: Path, settings: Settings) -> None:
    signed = folder.parent / "signed"
    signed.mkdir()
    shutil.move(folder, signed / "model")
    signing.sign_folder(signed, KEY)
    assert (await _prepare(signed, settings)).verified == ("Signature",)
    assert (settings.repository / "m" / "1" / "model.py").is_file()


async def test_each_model_of_a_repository_has_a_signature_of_its_own(folder: Path, settings: Settings) -> None:
    repository = folder.parent / "repository"
    for name in ("signed", "unsigned"):
        shutil.copytree(folder, repository / name)
    signing.sign_folder(repository / "signed", KEY)
    source = _source(repository).model_copy(update={"name": "signed", "format": "repository"})
    signed, unsigned = (part.source for part in await list_models(source, settings))
    assert (await Preparation(signed, settings).prepare(None)).verified == ("Signature",)
    with pytest.raises(Failure, match=r"/unsigned has no file model\.sig"):
        await Preparation(unsigned, settings).prepare(None)


async def test_the_example_is_signed_by_the_key_that_its_config_map_has(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "example"
    folder.mkdir()
    for name, content in examples.sign_model(filetypes.MODEL).items():
        (folder / name).write_bytes(bytes(content))
    (settings.trust / "team" / "key.pub").write_text(examples.build_trusted_keys()["data"]["key.pub"])
    source = _source(folder).model_copy(update={"format": "onnx"})
    assert (await Preparation(source, settings).prepare(None)).verified == ("Signature",)


def test_the_agent_imports_cryptography_for_models_with_a_signature_alone() -> None:
    _run("-c", "import sys, conch_agent.program; sys.exit('cryptography' in sys.modules)")
    _run("-c", "import sys, conch_agent.signatures.trust; sys.exit('sigstore' in sys.modules)")


def _run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
