"""The serving certificate: generated in this process, kept in memory, trusted through the APIService.

There is no Secret and no certificate authority: a private key that is never written cannot be read from anywhere, and
only the API server trusts the self-signed certificate, for one host name.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import SSLContext
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of nodes differ.
_BEFORE: Final = timedelta(minutes=5)
# Certificates in the bundle: those of all replicas within a certificate's life. A crash loop must not grow it for ever.
_BUNDLE: Final = 8


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM."""

    pem: bytes
    key: bytes

    @property
    def expiry(self) -> datetime:
        """The time from which it is no longer valid."""
        return x509.load_pem_x509_certificate(self.pem).not_valid_after_utc

    def serve(self, context: SSLContext) -> None:
        """Set this certificate in a TLS context, for all new connections."""
        with tempfile.TemporaryDirectory() as folder:  # the ssl module reads certificates only from files
            path = Path(folder) / "tls.pem"
            path.touch(mode=0o600)
            path.write_bytes(self.key + self.pem)
            context.load_cert_chain(path)


def issue(host: str, now: datetime, life: timedelta) -> Certificate:
    """Return a new self-signed certificate for a host name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def build_bundle(known: bytes, own: Iterable[Certificate], now: datetime) -> bytes:
    """Return a bundle with these certificates and the other valid ones, newest last.

    Invalid parts of the known bundle are dropped: the API server rejects a bundle that it cannot parse.
    """
    parsed = [x509.load_pem_x509_certificate(certificate.pem) for certificate in own]
    others = [one for one in _parse_certificates(known) if one.not_valid_after_utc > now and one not in parsed]
    others.sort(key=lambda one: one.not_valid_before_utc)
    retained = [*others[-(_BUNDLE - len(parsed)) :], *parsed]
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in retained)


def _parse_certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem) if pem else []
    except ValueError:
        return []


def now() -> datetime:
    """Return the time of the system's clock, in UTC."""
    return datetime.now(UTC)
