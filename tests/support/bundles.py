"""Keys, certificates, and signatures of models that are written by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CODE: Final = (ExtendedKeyUsageOID.CODE_SIGNING,)
PrivateKey = ec.EllipticCurvePrivateKey


def make_key(curve: ec.EllipticCurve | None = None) -> PrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def derive_key(name: str) -> PrivateKey:
    """Return the private key of a name, which is always the same: of an example, whose ConfigMap has its public key."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest()), ec.SECP256R1())


def write_private(key: PrivateKey) -> bytes:
    """Return a private key in PEM."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write_public(key: Any) -> str:
    """Return the public key of a private key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def write_certificates(certificates: Iterable[x509.Certificate]) -> str:
    """Return certificates in PEM."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def seal(statement: object, key: PrivateKey, **material: object) -> dict[str, Any]:
    """Return the bundle of a statement, signed by hand.

    Args:
        statement: The statement.
        key: The private key.
        material: Fields of verificationMaterial; none: the public key without a hint.
    """
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {**(material or {"publicKey": {}}), "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def open_bundle(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the statement of a bundle."""
    return dict(json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])))


def build_usage(*, is_authority: bool) -> x509.KeyUsage:
    """Return what the key of a certificate is for: other certificates, or signatures."""
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def make_certificate(
    name: str,
    key: PrivateKey,
    issuer: tuple[x509.Certificate, PrivateKey] | None = None,
    *,
    is_authority: bool = False,
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    days: tuple[int, int] = (-1, 30),
) -> x509.Certificate:
    """Return a certificate.

    Args:
        name: The common name.
        key: Its key.
        issuer: The certificate and the key of the authority that signs it; None: it is a root.
        is_authority: True if it may sign others.
        purposes: Its extendedKeyUsage; empty: it has none; None: that of code, and none for an authority.
        days: First and last day of its validity, from today.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(build_usage(is_authority=is_authority), critical=True)
    )
    if purposes is None:
        purposes = () if is_authority else CODE
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())
