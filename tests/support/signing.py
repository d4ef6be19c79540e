"""Signatures of models by the library of OpenSSF Model Signing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.x509 import Certificate
from model_signing import hashing, signing, verifying

from tests.support.bundles import PrivateKey, write_certificates, write_private, write_public

SIGNATURE: Final = "model.sig"


def sign_folder(
    folder: Path,
    key: PrivateKey,
    certificates: Sequence[Certificate] = (),
    *,
    ignored: Sequence[str] = (),
    config: hashing.Config | None = None,
) -> None:
    """Sign a folder with the library, into its `model.sig`, as `model_signing sign key` does.

    Args:
        folder: The folder.
        key: The private key.
        certificates: The certificate of the key, and those up to a root; none: it is signed with the key alone.
        ignored: Paths in the folder that are left out.
        config: The digests; None: the default.
    """
    beside = folder.parent / f"{folder.name}-keys"
    beside.mkdir(exist_ok=True)
    (beside / "key").write_bytes(write_private(key))
    files = []
    for number, certificate in enumerate(certificates):
        files.append(beside / f"{number}.pem")
        files[-1].write_text(write_certificates([certificate]))
    signer = signing.Config()
    if files:
        signer.use_certificate_signer(
            private_key=beside / "key", signing_certificate=files[0], certificate_chain=files[1:]
        )
    else:
        signer.use_elliptic_key_signer(private_key=beside / "key")
    chosen = (config or hashing.Config()).set_ignored_paths(paths=[SIGNATURE, *ignored])
    signer.set_hashing_config(chosen).sign(folder, folder / SIGNATURE)


def is_accepted(folder: Path, trusted: PrivateKey | Certificate) -> bool:
    """Return whether the library accepts the signature of a folder.

    Args:
        folder: The folder.
        trusted: The private key of the public key to trust, or a root certificate.
    """
    file, verifier = folder.parent / "trusted.pem", verifying.Config()
    if isinstance(trusted, Certificate):
        file.write_text(write_certificates([trusted]))
        verifier.use_certificate_verifier(certificate_chain=[file])
    else:
        file.write_text(write_public(trusted))
        verifier.use_elliptic_key_verifier(public_key=file)
    try:
        verifier.verify(folder, folder / SIGNATURE)
    except Exception:  # noqa: BLE001  whatever it raises for a hostile file
        return False
    return True
