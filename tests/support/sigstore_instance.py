"""An instance of Sigstore: an authority (Fulcio), a log of its certificates, and a log of signatures (Rekor).

The formats are those of https://github.com/sigstore/protobuf-specs, RFC 6962 (timestamps of certificates, the tree of a
log) and https://github.com/transparency-dev/formats (checkpoints). The log has one entry.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.support.bundles import PrivateKey, build_usage, make_key, seal

_ISSUER: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_TIMESTAMPS: Final = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_LIFE: Final = timedelta(minutes=10)


class Instance:
    """An instance, which has issued its certificates `age` ago."""

    def __init__(self, age: timedelta = timedelta()) -> None:
        self._authority, self._certificates, self._log = make_key(), make_key(), make_key()
        self._time = datetime.now(UTC).replace(microsecond=0) - age
        self._root = self._issue_root()

    def write_trusted_root(self) -> str:
        """Return the file trusted_root.json."""
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [_write_log(self._log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "example", "commonName": "example"},
                        "uri": "https://fulcio.example",
                        "certChain": {"certificates": [{"rawBytes": _encode(_to_der(self._root))}]},
                        "validFor": {"start": "2021-01-01T00:00:00Z"},
                    }
                ],
                "ctlogs": [_write_log(self._certificates)],
                "timestampAuthorities": [],
            }
        )

    def sign(self, statement: object, identity: str, issuer: str) -> dict[str, Any]:
        """Return the bundle of a statement, signed by an identity."""
        key = make_key()
        certificate = self._issue(key, identity, issuer)
        bundle = seal(statement, key, certificate={"rawBytes": _encode(_to_der(certificate))})
        bundle["verificationMaterial"]["tlogEntries"] = [self._enter(bundle["dsseEnvelope"], certificate)]
        return bundle

    def _issue_root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fulcio")])
        return (
            _begin(self._authority, name, name, self._time - timedelta(days=1), timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(build_usage(is_authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._authority.public_key()), critical=False)
            .sign(self._authority, hashes.SHA256())
        )

    def _issue(self, key: PrivateKey, identity: str, issuer: str) -> x509.Certificate:
        """Return a certificate of an identity, with the timestamp of the log of certificates."""
        builder = (
            _begin(key, x509.Name([]), self._root.subject, self._time, _LIFE)
            .add_extension(build_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority.public_key()), critical=False
            )
            .add_extension(x509.UnrecognizedExtension(_ISSUER, issuer.encode()), critical=False)
        )
        early = builder.sign(self._authority, hashes.SHA256())
        milliseconds = int(self._time.timestamp() * 1000)
        entry = early.tbs_certificate_bytes
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + _compute_id(self._authority)
        signed += len(entry).to_bytes(3) + entry + b"\0\0"
        signature = self._certificates.sign(signed, ec.ECDSA(hashes.SHA256()))
        stamp = b"\0" + _compute_id(self._certificates) + struct.pack("!QHBBH", milliseconds, 0, 4, 3, len(signature))
        stamp += signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        extension = x509.UnrecognizedExtension(_TIMESTAMPS, b"\x04" + bytes([len(listed)]) + listed)
        return builder.add_extension(extension, critical=False).sign(self._authority, hashes.SHA256())

    def _enter(self, envelope: dict[str, Any], certificate: x509.Certificate) -> dict[str, Any]:
        """Return the entry of an envelope in the log of signatures, whose time is promised."""
        payload = base64.b64decode(envelope["payload"])
        verifier = certificate.public_bytes(serialization.Encoding.PEM)
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": _encode(verifier)}],
        }
        body = _write_canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        log, moment = _compute_id(self._log), int(self._time.timestamp())
        promised = {"body": _encode(body), "integratedTime": moment, "logID": log.hex(), "logIndex": 0}
        promise = self._log.sign(_write_canonical(promised), ec.ECDSA(hashes.SHA256()))
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"rekor.example - 1\n1\n{_encode(root)}\n"
        mark = _encode(log[:4] + self._log.sign(note.encode(), ec.ECDSA(hashes.SHA256())))
        proof = {"logIndex": "0", "rootHash": _encode(root), "treeSize": "1", "hashes": []}
        return {
            "logIndex": "0",
            "logId": {"keyId": _encode(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": _encode(promise)},
            "inclusionProof": {**proof, "checkpoint": {"envelope": f"{note}\n— rekor.example {mark}\n"}},
            "canonicalizedBody": _encode(body),
        }


def _begin(
    key: PrivateKey, subject: x509.Name, issuer: x509.Name, start: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + life)


def _write_log(key: PrivateKey) -> dict[str, Any]:
    public = {
        "rawBytes": _encode(_write_key(key)),
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
        "validFor": {"start": "2021-01-01T00:00:00Z"},
    }
    log = {"keyId": _encode(_compute_id(key))}
    return {"baseUrl": "https://log.example", "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": log}


def _write_key(key: PrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _compute_id(key: PrivateKey) -> bytes:
    return hashlib.sha256(_write_key(key)).digest()


def _to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _write_canonical(value: object) -> bytes:
    """Return canonical JSON (RFC 8785) of texts, whole numbers, lists and objects."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
