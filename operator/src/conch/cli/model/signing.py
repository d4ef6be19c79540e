"""The signature of a folder, by the library of OpenSSF Model Signing, and its verification by the agent's code."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from model_signing import hashing, signing

from conch.cli.model.folder import list_paths
from conch.cli.model.manifest import MANIFEST_FILE, find_changes, hash_file, read_folder
from conch.cli.options import CommandError
from conch_agent.settings import Settings
from conch_agent.sources.local import LocalSource
from conch_agent.verification import Checks, read_checks
from conch_contract import ModelSource, Signature, Verification
from conch_contract.sentences import join_some
from conch_contract.verification import SIGNATURE_FILE

_TRUST: Final = "of --trust"  # in place of the name of a ConfigMap
_UNFINISHED: Final = f".{SIGNATURE_FILE}.new"  # a hidden name, which no agent fetches


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
    if changed := find_changes(read_folder(folder)):
        raise CommandError(f"{folder} has changed since its manifest was written: {join_some(changed)}; pack it again")
    _check_key(key)
    signed, signer = _list_signed(folder), signing.Config()
    others = [path for path in (each.relative_to(folder) for each in folder.rglob("*")) if path not in signed]
    signer.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, *map(str, others)]))
    if certificate:
        try:
            signer.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=list(chain)
            )
        except (ValueError, AttributeError) as error:
            expected = (
                "expected in --certificate the certificate of --key, and in --chain those of its authorities, in PEM"
            )
            raise CommandError(f"--certificate {certificate}: {error}; {expected}") from None
    else:
        signer.use_elliptic_key_signer(private_key=key)
    unfinished = folder / _UNFINISHED
    try:
        signer.sign(folder, unfinished)
        unfinished.replace(folder / SIGNATURE_FILE)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_key(key: Path) -> None:
    """Refuse a file that is no private key of one of the curves."""
    try:
        found = load_pem_private_key(key.read_bytes(), password=None)
    except TypeError:
        problem = "it needs a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        problem = "it is no private key in PEM"
    else:
        if isinstance(found, EllipticCurvePrivateKey) and isinstance(found.curve, (SECP256R1, SECP384R1, SECP521R1)):
            return
        problem = "it is of another kind"
    raise CommandError(
        f"--key {key}: {problem}; expected a private key of P-256, P-384 or P-521 in PEM, without a passphrase"
    )


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
        CommandError: The files are not those of the manifest, or that is not signed.
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
        content = read_folder(folder)
        verified = checks.verify({file.path: file.sha256 for file in content.files})
    if changed := find_changes(content):
        raise CommandError(f"{folder} has changed since its manifest was written: {join_some(changed)}; pack it again")
    if content.manifest and trusted:
        _verify_manifest(folder, checks)
    return {"verified": list(verified), "signer": checks.signer or None}


def _verify_manifest(folder: Path, checks: Checks) -> None:
    """Refuse a manifest that is not signed: agents do not read it, and commands print its texts."""
    if not all(MANIFEST_FILE in signature.files.sha256 for signature in checks.signatures):
        raise CommandError(
            f"{folder} has a manifest that the signature does not cover, so that its texts may be those of another;"
            " sign the folder again (kubectl conch model sign)"
        )
    checks.verify_signed({MANIFEST_FILE: hash_file(folder / MANIFEST_FILE, PurePosixPath(MANIFEST_FILE)).sha256})
