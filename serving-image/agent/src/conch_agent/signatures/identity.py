"""Signatures of an identity, such as an e-mail address or a workflow: those of Sigstore, also called keyless.

The signer has a certificate of a few minutes, and a log has the time of the signature. The library sigstore verifies
both with the keys of the instance in the trusted root, without a connection to it.
"""

from __future__ import annotations

from tempfile import NamedTemporaryFile
from typing import Final

from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity

from conch_agent.signatures.bundle import PAYLOAD_TYPE, Envelope, build_invalid
from conch_agent.signatures.trust import TrustedIdentity

_LONGEST: Final = 300  # characters of the library's message


def verify_identity(envelope: Envelope, trusted: TrustedIdentity, name: str) -> str:
    """Return the signer of an envelope: its identity and the issuer of that.

    Args:
        envelope: The envelope, with its bundle.
        trusted: The identity to trust.
        name: The storageUri and the path of the signature, with which messages begin.

    Raises:
        Failure: InvalidSignature.
    """
    signer = f"{trusted.identity} ({trusted.issuer})"
    try:
        bundle = Bundle.from_json(envelope.bundle)
        verifier = Verifier(trusted_root=_read_root(trusted.root))
        policy = Identity(identity=trusted.identity, issuer=trusted.issuer)
        signed = verifier.verify_dsse(bundle, policy)
    except Exception as error:  # noqa: BLE001  the library has many kinds of errors for files of others
        problem = str(error)[:_LONGEST] or type(error).__name__
        raise build_invalid(name, f"is not a signature of {signer}: {problem}") from None
    if signed != (PAYLOAD_TYPE, envelope.payload):
        raise build_invalid(name, "has two payloads")
    return signer


def _read_root(text: str) -> TrustedRoot:
    """Return a trusted root, which the library reads from a file."""
    with NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        return TrustedRoot.from_file(file.name)
