"""The encryption of a folder's files with age, of which an agent has an identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import pyrage
from pyrage.x25519 import Recipient

from conch.cli.model.folder import list_paths, make_output
from conch.cli.model.manifest import File, build_manifest, hash_file, read_manifest, write_manifest
from conch.cli.options import CommandError
from conch_contract.decryption import ENCRYPTED_SUFFIX
from conch_contract.verification import SIGNATURE_FILE

_IDENTITY: Final = "age-secret-key"  # in small letters; an identity may be written in these or in capitals


def parse_recipients(texts: Sequence[str], files: Sequence[Path]) -> list[Recipient]:
    """Return the recipients of options: public keys, and files with one a line, beside empty lines and comments.

    Args:
        texts: Public keys, age1...
        files: Files of public keys.

    Raises:
        CommandError: One is no public key of age, or there is none.
    """
    given = [("--recipient", text) for text in texts]
    for file in files:
        lines = enumerate(map(str.strip, file.read_text(errors="replace").splitlines()), start=1)
        given += [(f"{file}, line {number}", line) for number, line in lines if line and line[0] != "#"]
    recipients = []
    for place, text in given:
        try:
            recipients.append(Recipient.from_str(text.strip()))
        except (pyrage.RecipientError, UnicodeEncodeError):
            if _IDENTITY in text.casefold():
                problem = "is an identity, which is secret; write its public key, which age-keygen -y prints"
            else:
                problem = f"{text[:80]!r} is no public key; expected age1... as age-keygen prints it"
            raise CommandError(f"{place}: {problem}") from None
    if not recipients:
        raise CommandError("no recipient; set --recipient to the public key that age-keygen prints")
    return recipients


def encrypt_folder(source: Path, target: Path, recipients: Sequence[Recipient]) -> None:
    """Encrypt the files of a folder, each under its name with the suffix .age, and write their manifest.

    Args:
        source: The folder.
        target: The folder to make, which is absent or empty.
        recipients: Public keys, each of whose identities decrypts the files.

    Raises:
        CommandError: The folder is signed or encrypted already, or the target has files.
    """
    paths = list_paths(source)
    if SIGNATURE_FILE in map(str, paths):
        raise CommandError(
            f"{source} is signed, and a signature is that of the encrypted files; encrypt the folder without"
            f" {SIGNATURE_FILE}, then sign the result"
        )
    if all(path.suffix == ENCRYPTED_SUFFIX for path in paths):
        raise CommandError(f"{source} is encrypted already; encrypt the folder of the original files")
    with make_output(target, source):
        files = tuple(
            _encrypt(source / path, target, PurePosixPath(f"{path}{ENCRYPTED_SUFFIX}"), recipients) for path in paths
        )
        write_manifest(target, build_manifest(files, read_manifest(source), {}))


def _encrypt(file: Path, target: Path, path: PurePosixPath, recipients: Sequence[Recipient]) -> File:
    """Write the encrypted form of a file below the target, and return it."""
    encrypted = target / path
    encrypted.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as plain, encrypted.open("xb") as stream:
        pyrage.encrypt_io(plain, stream, recipients)
    return hash_file(encrypted, path)
