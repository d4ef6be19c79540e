"""Files of a model that are truncated, extended, changed by a bit, or in each other's place, and what a user reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pyrage
import pytest
from pyrage import x25519

from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_contract import Decryption, ModelSource, Signature, Verification
from tests.support import bundles, signing
from tests.unit.test_agent_verification import compute_digest

KEY: Final = bundles.make_key()
IDENTITY: Final = x25519.Identity.generate()
FILES: Final = {
    "config.pbtxt": b'backend: "python"\n',
    "1/model.py": b"class TritonPythonModel: ...\n",
    "1/a.bin": os.urandom(200_000),
    "1/b.bin": os.urandom(200_000),
}


def _flip(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


DAMAGES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "truncated": lambda content: content[:-1],
    "extended": lambda content: content + b"\0",
    "flipped": _flip,
}


def damage(folder: Path, kind: str, suffix: str = "") -> None:
    """Damage `1/a.bin`, or put it and `1/b.bin` in each other's place."""
    one, other = folder / f"1/a.bin{suffix}", folder / f"1/b.bin{suffix}"
    if kind == "swapped":
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        one.write_bytes(DAMAGES[kind](one.read_bytes()))


def write(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    for each in (settings.repository, settings.downloads, settings.decrypted, settings.trust / "team"):
        each.mkdir(parents=True)
    (settings.trust / "team" / "key.pub").write_text(bundles.write_public(KEY))
    (settings.decryption / "keys").mkdir(parents=True)
    (settings.decryption / "keys" / "key.txt").write_text(str(IDENTITY))
    return settings


def build_source(folder: Path, verify: Verification | None, *, decrypt: bool = False) -> ModelSource:
    keys = Decryption(secret="keys") if decrypt else None
    return ModelSource(name="m", format="triton", storage_uri=f"file://{folder}", verify=verify, decrypt=keys)


async def refuse(source: ModelSource, settings: Settings) -> Failure:
    """Return the failure of a model of which nothing reaches Triton."""
    with pytest.raises(Failure) as raised:
        await Preparation(source, settings).prepare(None)
    assert not list(settings.repository.iterdir())
    return raised.value


@pytest.mark.parametrize("kind", [*DAMAGES, "swapped"])
async def test_a_truncated_extended_flipped_or_swapped_file_has_another_digest(
    tmp_path: Path, settings: Settings, kind: str
) -> None:
    folder = write(tmp_path / "model")
    meant = compute_digest(folder)
    damage(folder, kind)
    failure = await refuse(build_source(folder, Verification(digest=meant)), settings)
    assert failure.reason == Reason.DIGEST_MISMATCH
    assert failure.message == (
        f"file://{folder} has the digest {compute_digest(folder)}, and storage.verify.digest is {meant}. Nothing"
        " of it is served. Upload the files that are meant; or, if these are, set storage.verify.digest to their"
        " digest."
    )


@pytest.mark.parametrize("kind", [*DAMAGES, "swapped"])
async def test_a_truncated_extended_flipped_or_swapped_file_is_not_signed(
    tmp_path: Path, settings: Settings, kind: str
) -> None:
    folder = write(tmp_path / "model")
    signing.sign_folder(folder, KEY)
    damage(folder, kind)
    failure = await refuse(build_source(folder, Verification(signature=Signature(config_map="team"))), settings)
    assert failure.reason == Reason.NOT_SIGNED
    names = "1/a.bin and 1/b.bin" if kind == "swapped" else "1/a.bin"
    assert failure.message == (
        f"file://{folder} has files with other contents than the signed ones: {names}. Nothing of it is served. Sign"
        " the folder again (model_signing), and upload it as a whole."
    )


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_truncated_extended_or_flipped_file_cannot_be_decrypted(
    tmp_path: Path, settings: Settings, kind: str
) -> None:
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.age").write_bytes(pyrage.encrypt(content, [IDENTITY.to_public()]))
    damage(folder, kind, ".age")
    failure = await refuse(build_source(folder, None, decrypt=True), settings)
    assert failure.reason == Reason.DECRYPTION_FAILED
    file = f"file://{folder}: 1/a.bin.age"
    first = f"{file} was changed or truncated after it was encrypted: it is authentic in its first"
    assert failure.message.startswith(first)
    rest = "Encrypt the folder as a whole (kubectl conch model encrypt), and upload it again."
    assert failure.message.endswith(f" Nothing of it is served. {rest}")


async def test_the_signature_of_another_folder(tmp_path: Path, settings: Settings) -> None:
    """It is valid, and signs other files."""
    folder, other = write(tmp_path / "model"), write(tmp_path / "other")
    (other / "1/a.bin").write_bytes(b"another")
    (other / "1/b.bin").rename(other / "1/c.bin")
    signing.sign_folder(other, KEY)
    (folder / "model.sig").write_bytes((other / "model.sig").read_bytes())
    failure = await refuse(build_source(folder, Verification(signature=Signature(config_map="team"))), settings)
    assert failure.reason == Reason.NOT_SIGNED
    assert failure.message == (
        f"file://{folder} has files that are not signed: 1/b.bin. Nothing of it is served. Sign the folder again"
        " (model_signing), and upload it as a whole."
    )
