"""`kubectl conch model`: what it makes is what an agent takes, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pyrage import x25519

from conch.cli.main import cli
from conch.cli.model.manifest import MANIFEST_FILE
from conch.cli.model.packing import read_archive
from conch.cli.options import CommandError
from conch_agent.archives.zstandard import zstd
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure
from conch_agent.settings import Settings
from conch_contract import Decryption, ModelSource, Signature, Verification
from tests.support import bundles, signing

KEY, IDENTITY = bundles.make_key(), x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
FILES = {"config.pbtxt": 'backend: "python"\n', "1/model.py": "class TritonPythonModel: ...\n", "1/größe 'a'.txt": "a"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".DS_Store").write_text("of a tool")
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(bundles.write_private(KEY))
    (tmp_path / "key.pub").write_text(bundles.write_public(KEY))
    return file


def _run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(cli, ["model", *map(str, arguments), "-o", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _refuse(*arguments: str | Path) -> str:
    result = CliRunner().invoke(cli, ["model", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    return result.stderr


def test_a_packed_folder_has_the_manifest_and_the_files_of_a_model(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    value = _run("pack", folder, "--to", packed, "--version", "3", "--author", "team", "--notes", "October's data")
    assert sorted(path.name for path in packed.iterdir()) == [MANIFEST_FILE, "1", "config.pbtxt"]
    assert [file["path"] for file in value["files"]] == sorted(FILES)
    assert (value["version"], value["author"], value["notes"]) == ("3", "team", "October's data")
    assert not value["changed"]
    assert _run("inspect", packed) == value
    assert _run("inspect", f"file://{packed}")["version"] == "3"


def test_the_text_has_the_digest_and_no_colours(folder: Path, tmp_path: Path) -> None:
    digest = _run("pack", folder, "--to", tmp_path / "packed")["digest"]
    result = CliRunner().invoke(cli, ["model", "inspect", str(tmp_path / "packed")])
    assert f"Digest: {digest}\n" in result.stdout
    assert "\x1b" not in result.output


async def test_the_digest_is_that_of_the_agent(folder: Path, tmp_path: Path, key: Path) -> None:
    """Also of an encrypted and signed folder, and of its archive."""
    plain = _run("pack", folder, "--to", tmp_path / "packed")
    _run("encrypt", tmp_path / "packed", "--to", tmp_path / "encrypted", "--recipient", RECIPIENT)
    signed = _run("sign", tmp_path / "encrypted", "--key", key)
    archive = _run("pack", tmp_path / "encrypted", "--to", tmp_path / "model.tar.zst")
    assert archive["digest"] == signed["digest"] != plain["digest"]
    settings = Settings(root=tmp_path / "pod")
    for each in (settings.repository, settings.downloads, settings.decrypted):
        each.mkdir(parents=True)
    for mounted, name, text in (
        (settings.trust / "team", "key.pub", bundles.write_public(KEY)),
        (settings.decryption / "keys", "key.txt", str(IDENTITY)),
    ):
        mounted.mkdir(parents=True)
        (mounted / name).write_text(text)
    for place, value, keys in (("packed", plain, None), ("encrypted", signed, Decryption(secret="keys"))):
        verify = Verification(digest=value["digest"], signature=Signature(config_map="team") if keys else None)
        uri = f"file://{tmp_path / place}"
        source = ModelSource(name=place, format="triton", storage_uri=uri, verify=verify, decrypt=keys)
        assert (await Preparation(source, settings).prepare(None)).digest == value["digest"]
        laid = settings.repository / place
        assert {name: (laid / name).read_text() for name in FILES if name[0] == "1"} == {
            name: text for name, text in FILES.items() if name[0] == "1"
        }


def test_equal_contents_have_equal_archives(folder: Path, tmp_path: Path) -> None:
    _run("pack", folder, "--to", tmp_path / "packed")
    for name in ("a.tar.zst", "b.tar.zst"):
        value = _run("pack", tmp_path / "packed", "--to", tmp_path / name)
        assert {**value, "source": ""} == {**_run("inspect", tmp_path / "packed"), "source": ""}
        (tmp_path / "packed/1/model.py").touch()
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_links_devices_and_odd_names_are_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to("config.pbtxt")
    (folder / "1/folder").symlink_to("..")
    os.mkfifo(folder / "1/pipe")
    message = _refuse("pack", folder, "--to", tmp_path / "packed")
    assert all(name in message for name in ("link", "1/folder", "1/pipe"))
    assert "put regular files in their place" in message
    for path in ("link", "1/folder", "1/pipe"):
        (folder / path).unlink()
    (folder / "a\nb").write_text("")
    assert "plain relative names" in _refuse("pack", folder, "--to", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    (tmp_path / "empty").mkdir()
    assert "has no files" in _refuse("pack", tmp_path / "empty", "--to", tmp_path / "packed")


def test_a_folder_with_files_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/a").write_text("")
    assert "exists and is not empty" in _refuse("pack", folder, "--to", tmp_path / "packed")


def _write_archive(file: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with zstd.open(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def test_an_archive_of_someone_else_is_read_without_trust(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(CommandError, match="link is a symbolic link; pack regular files"):
        read_archive(_write_archive(tmp_path / "a", (link, b"")))
    assert "which would leave its folder" in _refuse(
        "inspect", _write_archive(tmp_path / "b.tar.zst", (tarfile.TarInfo("../x"), b""))
    )
    with pytest.raises(CommandError, match="is no manifest of kubectl conch: kind"):
        read_archive(_write_archive(tmp_path / "c", (tarfile.TarInfo(MANIFEST_FILE), b'{"kind": "x"}')))
    (tmp_path / "d").write_bytes(b"no archive")
    with pytest.raises(Failure, match="is no tar file"):
        read_archive(tmp_path / "d")
    whole = _write_archive(tmp_path / "e", (tarfile.TarInfo("a"), os.urandom(100_000)))
    whole.write_bytes(whole.read_bytes()[:50_000])
    with pytest.raises(Failure, match="ends within its compressed data"):
        read_archive(whole)


RECIPIENTS = {
    "no key": (("--recipient", "age1x"), "'age1x' is no public key; expected age1..."),
    "an identity": (("--recipient", str(IDENTITY)), "is an identity, which is secret; write its public key"),
    "none": ((), "no recipient; set --recipient"),
}


@pytest.mark.parametrize("case", RECIPIENTS)
def test_what_is_no_recipient(folder: Path, tmp_path: Path, case: str) -> None:
    options, named = RECIPIENTS[case]
    message = _refuse("encrypt", folder, "--to", tmp_path / "encrypted", *options)
    assert named in message
    assert str(IDENTITY) not in message
    assert not (tmp_path / "encrypted").exists()


def test_recipients_of_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "team.txt").write_text(f"# the team\n\n{RECIPIENT}\n")
    value = _run("encrypt", folder, "--to", tmp_path / "encrypted", "--recipients-file", tmp_path / "team.txt")
    assert {file["path"] for file in value["files"]} == {f"{name}.age" for name in FILES}


def test_a_signed_or_encrypted_folder_is_not_encrypted(folder: Path, tmp_path: Path, key: Path) -> None:
    _run("sign", folder, "--key", key)
    options = ("--recipient", RECIPIENT, "--to", tmp_path / "encrypted")
    assert "encrypt the folder without model.sig, then sign the result" in _refuse("encrypt", folder, *options)
    (folder / "model.sig").unlink()
    _run("encrypt", folder, *options)
    assert "is encrypted already" in _refuse("encrypt", tmp_path / "encrypted", "--recipient", RECIPIENT, "--to", "x")


def test_a_signature_is_accepted_by_the_library_and_by_the_agents_code(folder: Path, tmp_path: Path, key: Path) -> None:
    _run("pack", folder, "--to", tmp_path / "packed", "--version", "1")
    packed = tmp_path / "packed"
    assert _run("sign", packed, "--key", key)["signed"]
    assert signing.is_accepted(packed, KEY)
    value = _run("verify", packed, "--trust", tmp_path / "key.pub")
    assert value["verified"] == ["Signature"]
    assert value["signer"].startswith("sha256:")
    assert _run("verify", packed, "--digest", value["digest"])["verified"] == ["Digest"]
    _run("sign", packed, "--key", key)
    assert _run("verify", packed, "--trust", tmp_path / "key.pub")["verified"] == ["Signature"], "signed again"
    (packed / MANIFEST_FILE).write_text((packed / MANIFEST_FILE).read_text().replace('"1"', '"2"'))
    assert not signing.is_accepted(packed, KEY), "the signature covers the manifest"
    assert "set texts before it is signed" in _refuse("pack", packed, "--to", "x", "--version", "2")


def test_a_signature_of_a_certificate(folder: Path, tmp_path: Path, key: Path) -> None:
    root, certificate = _write_certificates(tmp_path)
    _run("sign", folder, "--key", key, "--certificate", certificate, "--chain", root)
    assert "CN=" in _run("verify", folder, "--trust", root)["signer"]


def _write_certificates(folder: Path, **options: Any) -> tuple[Path, Path]:
    root_key = bundles.make_key()
    root = bundles.make_certificate("root", root_key, is_authority=True)
    signer = bundles.make_certificate("signer", KEY, (root, root_key), **options)
    (folder / "root.pem").write_text(bundles.write_certificates([root]))
    (folder / "signer.pem").write_text(bundles.write_certificates([signer]))
    return folder / "root.pem", folder / "signer.pem"


def test_what_is_not_verified(folder: Path, tmp_path: Path, key: Path) -> None:
    trust = ("--trust", tmp_path / "key.pub")
    assert "SignatureMissing" in _refuse("verify", folder, *trust)
    _run("sign", folder, "--key", key)
    (tmp_path / "other.pub").write_text(bundles.write_public(bundles.make_key()))
    assert "is signed with another key" in _refuse("verify", folder, "--trust", tmp_path / "other.pub")
    signature = (folder / "model.sig").read_bytes()
    (folder / "1/model.py").write_text("evil")
    assert "NotSigned" in (message := _refuse("verify", folder, *trust))
    assert "other contents than the signed ones: 1/model.py" in message
    (folder / "1/model.py").write_text(FILES["1/model.py"])
    (folder / "more").write_text("")
    assert "files that are not signed: more" in _refuse("verify", folder, *trust)
    (folder / "more").unlink()
    assert signature == (folder / "model.sig").read_bytes()
    assert "DigestMismatch" in _refuse("verify", folder, "--digest", f"sha256:{'0' * 64}")
    assert "nothing to verify" in _refuse("verify", folder)


def test_an_expired_certificate(folder: Path, tmp_path: Path, key: Path) -> None:
    root, certificate = _write_certificates(tmp_path, days=(-30, -1))
    _run("sign", folder, "--key", key, "--certificate", certificate, "--chain", root)
    assert "expired on" in _refuse("verify", folder, "--trust", root)


def test_a_folder_that_has_changed_is_not_signed(folder: Path, tmp_path: Path, key: Path) -> None:
    packed = tmp_path / "packed"
    _run("pack", folder, "--to", packed)
    (packed / "1/model.py").write_text("changed")
    assert _run("inspect", packed)["changed"] == ["1/model.py"]
    assert "has changed since its manifest was written: 1/model.py; pack it again" in _refuse(
        "sign", packed, "--key", key
    )


def test_a_key_that_cannot_sign(folder: Path, tmp_path: Path, key: Path) -> None:
    assert "expected a private key of P-256" in _refuse("sign", folder, "--key", tmp_path / "key.pub")
    assert "--certificate and --chain are used together" in _refuse("sign", folder, "--key", key, "--chain", key)
    assert not (folder / "model.sig").exists()


def test_other_commands_import_no_package_of_the_extra() -> None:
    program = "import sys, conch.cli.main; print(sorted({'conch_agent', 'obstore', 'pyrage'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
