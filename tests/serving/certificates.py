"""Certificates of servers: those of OpenSSL's commands, and one for each kind of error."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


def openssl(folder: Path, *options: str) -> tuple[Path, Path]:
    """Return a self-signed certificate and its key from `openssl req -x509`: an authority, without key usage."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *options]
    subprocess.run([*command, "-out", certificate, "-keyout", key], capture_output=True, check=True)
    return certificate, key


def issued(folder: Path, *, host: str = "127.0.0.1", days: tuple[int, int] = (-1, 30)) -> tuple[Path, Path, Path]:
    """Return a server's certificate, its key, and its issuer's; it is valid from and to so many days from now."""
    folder.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("issuer", "store"))
    authority = (
        x509.CertificateBuilder(authority_name, authority_name, authority_key.public_key(), x509.random_serial_number())
        .not_valid_before(now - 99 * _DAY)
        .not_valid_after(now + 99 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    alternative: x509.GeneralName
    try:
        alternative = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    server = (
        x509.CertificateBuilder(authority_name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
    form = serialization.PrivateFormat.PKCS8
    files[0].write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    files[2].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return files
