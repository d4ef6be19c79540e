"""`kubectl conch model` with what users and others write: odd texts and files, and commands that are killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pyrage import x25519

from conch.cli.main import cli
from conch.cli.model.commands import model as model_group
from conch.cli.model.folder import make_output
from conch.cli.model.manifest import MANIFEST_FILE
from tests.support import bundles
from tests.support.plugin import PROGRAM

KEY, IDENTITY = bundles.make_key(), x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.py").write_text("class TritonPythonModel: ...\n")
    (tmp_path / "key").write_bytes(bundles.write_private(KEY))
    (tmp_path / "key.pub").write_text(bundles.write_public(KEY))
    return Path("model")


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["model", *map(str, arguments)], catch_exceptions=False)


def _refuse(*arguments: str | Path, status: int = 1) -> str:
    result = _run(*arguments)
    assert result.exit_code == status, result.output
    assert not result.stdout
    return " ".join(result.stderr.split())


TEXTS = {"too long": "a" * 4097, "an escape sequence": "a\x1b[31m", "a NUL": "\0", "no UTF-8": "\udcff"}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("option", ["--version", "--author", "--notes"])
def test_a_text_that_no_manifest_takes(folder: Path, option: str, case: str) -> None:
    message = _refuse("pack", folder, "--to", "packed", option, TEXTS[case], status=2)
    assert option in message
    assert "; write " in message
    assert not Path("packed").exists()


def test_texts_of_others_control_no_terminal(folder: Path) -> None:
    _run("pack", folder, "--to", "packed", "--notes", "first\nsecond")
    file = Path("packed", MANIFEST_FILE)
    value = json.loads(file.read_text())
    file.write_text(json.dumps({**value, "author": "\x1b[31m\x9b2J", "notes": "x\nDigest: sha256:00\n\u202e"}))
    text = _run("inspect", "packed").stdout
    assert "Author: ?[31m?2J\n" in text
    assert "Notes: x Digest: sha256:00 ?\n" in text
    file.write_text(json.dumps({**value, "\x1b[31m": 1}))
    assert "?[31m: Extra inputs are not permitted; pack again" in _refuse("inspect", "packed")
    file.write_text("")
    assert f"{MANIFEST_FILE} is no manifest of kubectl conch: Invalid JSON" in _refuse("inspect", "packed")


RECIPIENTS = {
    "a file that is no text": b"\xff\xfe",
    "an identity in small letters": str(IDENTITY).lower().encode(),
    "an identity in quotes": f'"{IDENTITY}"'.encode(),
}


@pytest.mark.parametrize("case", RECIPIENTS)
def test_a_file_of_recipients_that_is_none(folder: Path, case: str) -> None:
    Path("team.txt").write_bytes(b"# the team\n\n" + RECIPIENTS[case])
    message = _refuse("encrypt", folder, "--to", "encrypted", "--recipients-file", "team.txt")
    assert message.startswith("Error: team.txt, line 3: ")
    assert str(IDENTITY).lower()[:20] not in message.lower()


def test_recipients_of_the_command_line(folder: Path) -> None:
    for text in ("\udcff", str(IDENTITY).lower(), f" {IDENTITY}"):
        message = _refuse("encrypt", folder, "--to", "encrypted", "--recipient", text)
        assert message.startswith("Error: --recipient: ")
        assert str(IDENTITY).lower()[:20] not in message.lower()
    assert _run("encrypt", folder, "--to", "encrypted", "--recipient", f" {RECIPIENT}\n").exit_code == 0


OUTPUTS: dict[str, tuple[str, str]] = {
    "a folder in the model": ("model/packed", "model/packed is in model, and would be a part of the model"),
    "an archive in the model": ("model/a.tar.zst", "model/a.tar.zst is in model, and would be a part of the model"),
    "the model": ("model", "model exists and is not empty"),
    "a folder as an archive": ("d.tar.zst", "d.tar.zst is a folder; name another file"),
    "a file": ("file", "file exists and is not empty"),
    "below a file": ("file/packed", "file/packed: Not a directory; correct the path"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_that_cannot_be_written(folder: Path, case: str) -> None:
    Path("d.tar.zst").mkdir()
    Path("file").write_text("of someone")
    target, words = OUTPUTS[case]
    assert words.partition(";")[0] in (message := _refuse("pack", folder, "--to", target))
    assert ";" in message
    assert not message.endswith(".")
    assert Path("file").read_text() == "of someone"
    assert [path.name for path in folder.iterdir()] == ["model.py"]


def test_an_archive_in_a_folder_that_is_not_there(folder: Path) -> None:
    assert _run("pack", folder, "--to", "new/folder/model.tar.zst").exit_code == 0
    assert _run("inspect", "new/folder/model.tar.zst").exit_code == 0


def test_a_folder_whose_making_fails_is_as_before(folder: Path) -> None:
    def fail(target: Path) -> None:
        with make_output(target, folder):
            (target / "1").mkdir()
            (target / "1/a").write_text("")
            raise OSError(28, "full")

    Path("there").mkdir()
    for target in (Path("there"), Path("new")):
        with pytest.raises(OSError, match="full"):
            fail(target)
    assert not list(Path("there").iterdir())
    assert not Path("new").exists()


def _kill_when(is_time: Callable[[], bool], *arguments: str | Path) -> None:
    process = subprocess.Popen([PROGRAM, "model", *arguments], stdout=subprocess.PIPE)
    try:
        while not is_time():  # without the pauses of `until`, in which it could end
            assert process.poll() is None, "the command has ended"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("command", [("encrypt", "--recipient", RECIPIENT), ("pack", "--version", "1")])
def test_what_a_killed_command_has_left_is_no_model(folder: Path, command: tuple[str, ...]) -> None:
    with (folder / "weights").open("wb") as file:
        file.truncate(1024**3)
    name, *options = command
    _kill_when(Path("out/.conch-incomplete").exists, name, folder, "--to", "out", *options)
    assert not Path("out", MANIFEST_FILE).exists()
    os.truncate(folder / "weights", 10)
    for left in Path("out").glob("weights*"):
        os.truncate(left, 10)  # tests keep their folders
    others: tuple[tuple[str | Path, ...], ...] = (
        ("sign", "out", "--key", "key"),
        ("push", "out", "s3://models/out"),
        ("inspect", "out"),
        ("pack", "out", "--to", "a.tar.zst"),
        (name, folder, "--to", "out", *options),
    )
    for other in others:
        assert "out is incomplete: the command that wrote it was interrupted; remove it" in _refuse(*other)
    assert _run(name, folder, "--to", "again", *options).exit_code == 0


def test_a_killed_archive_is_none(folder: Path) -> None:
    (folder / "weights").write_bytes(os.urandom(100_000_000))
    _kill_when(Path(".model.tar.zst.new").exists, "pack", folder, "--to", "model.tar.zst")
    assert not Path("model.tar.zst").exists()
    assert _run("pack", folder, "--to", "model.tar.zst").exit_code == 0
    assert not list(Path().glob(".model*"))


PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
KEYS: dict[str, Callable[[], PrivateKey]] = {
    "of RSA": lambda: rsa.generate_private_key(65537, 2048),
    "of Ed25519": ed25519.Ed25519PrivateKey.generate,
    "of another curve": lambda: ec.generate_private_key(ec.SECP256K1()),
}


def _write_key(key: PrivateKey, password: str) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("case", KEYS)
def test_a_key_of_another_kind(folder: Path, case: str) -> None:
    Path("other").write_bytes(_write_key(KEYS[case](), ""))
    assert "--key other: it is of another kind; expected a private key of P-256" in _refuse(
        "sign", folder, "--key", "other"
    )


def test_keys_and_certificates_that_do_not_fit(folder: Path) -> None:
    Path("locked").write_bytes(_write_key(KEY, "password"))
    assert "it needs a passphrase; expected" in _refuse("sign", folder, "--key", "locked")
    Path("empty").write_text("")
    assert "it is no private key in PEM; expected" in _refuse("sign", folder, "--key", "empty")
    other = bundles.make_certificate("other", bundles.make_key(), is_authority=True)
    Path("other.pem").write_text(bundles.write_certificates([other]))
    for options in (("other.pem", "other.pem"), ("empty", "other.pem"), ("other.pem", "key")):
        message = _refuse("sign", folder, "--key", "key", "--certificate", options[0], "--chain", options[1])
        assert message.startswith(f"Error: --certificate {options[0]}: ")
        assert "expected in --certificate the certificate of --key" in message
    assert [path.name for path in folder.iterdir()] == ["model.py"]


def test_a_manifest_that_the_signature_does_not_cover(folder: Path) -> None:
    _run("pack", folder, "--to", "packed", "--author", "team")
    _run("sign", "packed", "--key", "key")
    file = Path("packed", MANIFEST_FILE)
    file.write_text(file.read_text().replace("team", "evil"))
    message = _refuse("verify", "packed", "--trust", "key.pub")
    assert f"other contents than the signed ones: {MANIFEST_FILE}" in message
    file.unlink()
    _run("sign", "packed", "--key", "key")
    _run("pack", "packed", "--to", "again")
    assert "a manifest that the signature does not cover" in _refuse("verify", "again", "--trust", "key.pub")
    assert _run("verify", "packed", "--trust", "key.pub").exit_code == 0


def test_a_digest_that_is_none(folder: Path) -> None:
    for digest in ("sha256:", f"sha256:{'A' * 64}", "a\x1b[31m", "\udcff"):
        assert "expected sha256: and 64 hexadecimal digits" in _refuse("verify", folder, "--digest", digest)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "SOURCE is empty; name a folder"),
        ("nothing", "nothing does not exist; expected"),
        ("key.pub", "key.pub is a file; expected a folder, or an archive of pack, whose name ends with .tar.zst"),
        ("nothing.tar.zst", "nothing.tar.zst does not exist; expected"),
    ],
)
def test_a_source_that_is_none(folder: Path, source: str, words: str) -> None:
    assert folder
    assert words in _refuse("inspect", source)


def test_the_examples_of_the_help_run(folder: Path) -> None:
    lines = [line.strip() for line in (model_group.help or "").splitlines() if "kubectl conch model" in line]
    assert len(lines) == 4
    for line in lines:
        name, *words = shlex.split(line.removeprefix("kubectl conch model ").replace("age1...", RECIPIENT))
        if name == "push":  # of which the store is not here
            model_group.commands[name].make_context(name, words)
            continue
        result = _run(name, *words)
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert folder.exists()
