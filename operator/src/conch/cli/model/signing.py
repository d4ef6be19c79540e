"""The signature of a folder, by the library of OpenSSF Model Signing, and its verification by the agent's code."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from model_signing import hashing, signing

from conch.cli.model.folder import list_paths
from conch.cli.model.manifest import MANIFEST_FILE, find_changes, hash_folder, read_manifest
from conch.cli.options import CommandError
from conch_agent.settings import Settings
from conch_agent.sources.local import LocalSource
from conch_agent.verification import read_checks
from conch_contract import ModelSource, Signature, Verification
from conch_contract.sentences import join_some
from conch_contract.verification import SIGNATURE_FILE

_TRUST: Final = "of --trust"  # in place of the name of a ConfigMap


def sign_folder(folder: Path, key: Path, certificate: Path | None, chain: Sequence[Path]) -> None:
    """Write the signature of a folder, into the file model.sig in it. An older one is replaced.

    Args:
        folder: The folder.
        key: Private key in PEM, of the curve P-256, P-384 or P-521.
        certificate: Certificate of the key in PEM; None: the signature has the key's id alone.
        chain: Certificates up to a root, which the signature has too.

    Raises:
        CommandError: The key or a certificate cannot be used, or the files are not those of the manifest.
    """
    if changed := find_changes(read_manifest(folder), hash_folder(folder)):
        raise CommandError(f"{folder} has changed since its manifest was written: {join_some(changed)}; pack it again")
    signed, signer = _list_signed(folder), signing.Config()
    others = [path for path in (each.relative_to(folder) for each in folder.rglob("*")) if path not in signed]
    signer.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, *map(str, others)]))
    try:
        if certificate:
            signer.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=list(chain)
            )
        else:
            signer.use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError) as error:
        raise CommandError(f"--key {key}: {error}; expected a private key of P-256, P-384 or P-521 in PEM") from None
    signer.sign(folder, folder / SIGNATURE_FILE)


def _list_signed(folder: Path) -> set[Path]:
    """Return what is signed, and its folders: what an agent fetches, and the manifest."""
    files = {Path(path) for path in list_paths(folder)} | {Path(MANIFEST_FILE)}
    return files | {parent for file in files for parent in file.parents}


async def verify_folder(folder: Path, trusted: Sequence[Path], digest: str) -> dict[str, Any]:
    """Return the checks that a folder has passed, and its signer, by the code of the agent.

    Args:
        folder: The folder.
        trusted: Public keys or root certificates in PEM, of which one has to have signed; none: no signature is needed.
        digest: The digest that the files must have; empty: any.

    Raises:
        CommandError: The files are not those of the manifest.
        Failure: A check fails.
    """
    with tempfile.TemporaryDirectory() as root:
        settings = Settings(root=Path(root))
        keys = settings.trust / _TRUST
        keys.mkdir(parents=True)
        for number, file in enumerate(trusted):
            shutil.copyfile(file, keys / f"{number}-{file.name}")
        verify = Verification(digest=digest, signature=Signature(config_map=_TRUST) if trusted else None)
        model = ModelSource(name="model", format="triton", storage_uri=str(folder), verify=verify)
        source = LocalSource(str(folder), folder, folder)
        listing = await source.list_files()
        checks = await read_checks(source, listing, model, settings, policy=None)
        checks.select(listing)
        files = hash_folder(folder)
        verified = checks.verify({file.path: file.sha256 for file in files})
    if changed := find_changes(read_manifest(folder), files):
        raise CommandError(f"{folder} has changed since its manifest was written: {join_some(changed)}; pack it again")
    return {"verified": list(verified), "signer": checks.signer or None}
