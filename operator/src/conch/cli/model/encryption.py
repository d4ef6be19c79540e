"""The encryption of a folder's files with age, of which an agent has an identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyrage
from pyrage.x25519 import Recipient

from conch.cli.model.folder import list_paths, make_output
from conch.cli.model.manifest import build_manifest, read_manifest, write_manifest
from conch.cli.options import CommandError
from conch_contract.decryption import ENCRYPTED_SUFFIX
from conch_contract.verification import SIGNATURE_FILE


def parse_recipients(texts: Sequence[str], files: Sequence[Path]) -> list[Recipient]:
    """Return the recipients of options: public keys, and files with one a line, beside empty lines and comments.

    Args:
        texts: Public keys, age1...
        files: Files of public keys.

    Raises:
        CommandError: One is no public key of age, or there is none.
    """
    lines = list(texts)
    for file in files:
        lines += [line for each in file.read_text().splitlines() if (line := each.strip()) and line[0] != "#"]
    recipients = []
    for line in lines:
        try:
            recipients.append(Recipient.from_str(line))
        except pyrage.RecipientError:
            if line.startswith("AGE-SECRET-KEY-"):
                problem = "is an identity, which is secret; write its public key, which age-keygen -y prints"
            else:
                problem = f"{line[:80]!r} is no public key; expected age1... as age-keygen prints it"
            raise CommandError(f"--recipient: {problem}") from None
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
    make_output(target)
    for path in paths:
        encrypted = target / f"{path}{ENCRYPTED_SUFFIX}"
        encrypted.parent.mkdir(parents=True, exist_ok=True)
        with (source / path).open("rb") as plain, encrypted.open("xb") as stream:
            pyrage.encrypt_io(plain, stream, recipients)
    write_manifest(target, build_manifest(target, read_manifest(source), {}))
