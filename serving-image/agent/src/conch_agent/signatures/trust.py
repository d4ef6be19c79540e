"""The keys that a user trusts, and the verification of an envelope with them.

As in the library model-signing, a key is one of the elliptic curves P-256, P-384 and P-521, and is used with SHA-256,
SHA-384 and SHA-512. Certificates must be valid when they are verified; the library takes the time at which they began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from conch_agent.reasons import Failure, Reason
from conch_agent.signatures.bundle import Envelope, build_invalid
from conch_contract.sentences import join_some

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_CURVES: Final = "P-256, P-384 or P-521"
# The keys of a ConfigMap for signatures of an identity.
_ROOT: Final = "trusted_root.json"
_IDENTITY: Final = "identity"
_ISSUER: Final = "issuer"
_OF_IDENTITY: Final = (_ROOT, _IDENTITY, _ISSUER)
_KEY: Final = "-----BEGIN PUBLIC KEY-----"
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_FOR_CODE: Final = frozenset({ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


@dataclass(frozen=True)
class TrustedIdentity:
    """An identity that may sign, such as an e-mail address.

    Attributes:
        root: The file trusted_root.json of the instance of Sigstore, as text.
        identity: The identity.
        issuer: The OpenID Connect issuer that has verified it.
    """

    root: str
    identity: str
    issuer: str


@dataclass(frozen=True)
class Trust:
    """Trusted keys.

    Attributes:
        origin: What has them, for messages, such as: the ConfigMap 'team'.
        keys: Public keys by id: `sha256:` and the SHA-256 of the key in PEM, as `sha256sum key.pub` prints it.
        roots: Root certificates.
        identity: A trusted identity; None: there is none.
    """

    origin: str
    keys: Mapping[str, ec.EllipticCurvePublicKey]
    roots: tuple[x509.Certificate, ...]
    identity: TrustedIdentity | None = None


def read_trust(mounted: Path, config_map: str) -> Trust:
    """Return the trusted keys of a ConfigMap.

    Args:
        mounted: The folder in which ConfigMaps of trusted keys are mounted by name.
        config_map: Name of the ConfigMap.

    Raises:
        Failure: KeyMissing, or InvalidKey with the entry that is no key.
    """
    files = sorted(file for file in (mounted / config_map).glob("*") if file.is_file() and file.name[0] != ".")
    if not files:
        message = (
            f"The ConfigMap {config_map!r} that storage.verify.signature.configMapRef names does not exist, or is"
            f" empty. Create it in the service's namespace: kubectl create configmap {config_map} --from-file=key.pub"
        )
        raise Failure(Reason.KEY_MISSING, message)
    return parse_trust({file.name: file.read_text(errors="replace") for file in files}, f"the ConfigMap {config_map!r}")


def parse_trust(files: Mapping[str, str], origin: str) -> Trust:
    """Return the trusted keys in some files.

    Args:
        files: Texts by name.
        origin: What has them, for messages, such as: the ConfigMap 'team'.

    Raises:
        Failure: InvalidKey with the entry that is no key.
    """
    keys: list[ec.EllipticCurvePublicKey] = []
    roots: list[x509.Certificate] = []
    identity = _parse_identity({name: files[name].strip() for name in files if name in _OF_IDENTITY}, origin)
    for name, text in files.items():
        if name in _OF_IDENTITY:
            continue
        try:
            if _CERTIFICATE in text:
                roots += x509.load_pem_x509_certificates(text.encode())
            elif _KEY in text:
                keys.append(_check_key(serialization.load_pem_public_key(text.encode())))
            else:
                raise ValueError("it has neither a public key nor a certificate in PEM")
        except _UNREADABLE as error:
            message = (
                f"{name} of {origin} is not a key to trust: {error}. Write a public key of the curve {_CURVES}"
                f" ({_KEY}), or root certificates ({_CERTIFICATE})."
            )
            raise Failure(Reason.INVALID_KEY, message) from None
    return Trust(origin, {compute_id(key): key for key in keys}, tuple(roots), identity)


def _parse_identity(texts: Mapping[str, str], origin: str) -> TrustedIdentity | None:
    """Return the trusted identity, of which there are three files; None: there is none of them."""
    if not texts:
        return None
    if missing := [name for name in _OF_IDENTITY if not texts.get(name)]:
        message = (
            f"{origin[0].upper()}{origin[1:]} has {join_some(texts)} and lacks {join_some(missing)}. For signatures of"
            " an identity write all of them; for other signatures remove them."
        )
        raise Failure(Reason.INVALID_KEY, message)
    return TrustedIdentity(texts[_ROOT], texts[_IDENTITY], texts[_ISSUER])


def compute_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return the id of a public key.

    Args:
        key: The key.
    """
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(pem).hexdigest()}"


def verify_envelope(envelope: Envelope, trust: Trust, name: str, now: datetime) -> str:
    """Return the signer of an envelope: the id of a key, the subject and fingerprint of a certificate, or an identity.

    Args:
        envelope: The envelope.
        trust: The trusted keys.
        name: The storageUri and the path of the signature, with which messages begin.
        now: The time at which certificates have to be valid.

    Raises:
        Failure: InvalidSignature.
    """
    if envelope.bundle:
        return _verify_identity(envelope, trust, name)
    if envelope.certificates:
        return _verify_with_certificate(envelope, trust, name, now)
    hint = f"sha256:{envelope.hint}"
    candidates = {key: trust.keys[key] for key in trust.keys if hint in {key, "sha256:"}}
    for key, public in candidates.items():
        if _has_signed(public, envelope):
            return key
    known = f"has the keys {join_some(trust.keys)}" if trust.keys else "has no public key"
    problem = (
        "does not have the signature of its key: it was changed"
        if candidates and envelope.hint
        else f"is signed with another key ({hint[:80]}): {trust.origin} {known}"
    )
    remedy = f"Sign the folder with a trusted key, or add its public key to {trust.origin}"
    raise build_invalid(name, problem, remedy)


def _verify_identity(envelope: Envelope, trust: Trust, name: str) -> str:
    if trust.identity is None:
        problem = f"is signed by an identity, and {trust.origin} has none"
        raise build_invalid(name, problem, f"Add {join_some(_OF_IDENTITY)} to it, or sign with a key")
    # Imported for such signatures alone: it brings 19 packages.
    from conch_agent.signatures.identity import verify_identity  # noqa: PLC0415

    return verify_identity(envelope, trust.identity, name)


def _has_signed(key: ec.EllipticCurvePublicKey, envelope: Envelope) -> bool:
    try:
        key.verify(envelope.signature, envelope.message, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _check_key(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ValueError(f"it is not of the curve {_CURVES}")
    return key


def _verify_with_certificate(envelope: Envelope, trust: Trust, name: str, now: datetime) -> str:
    try:
        chain = [x509.load_der_x509_certificate(certificate) for certificate in envelope.certificates]
        signer = chain[0]
        key = _check_key(signer.public_key())
        subject = signer.subject.rfc4514_string()[:200]
        problem = _find_problem(chain, trust, now)
    except _UNREADABLE as error:
        raise build_invalid(name, f"has a certificate that cannot be used: {error}") from None
    if problem:
        raise build_invalid(name, f"is not signed by a trusted certificate: {problem}")
    if not _has_signed(key, envelope):
        raise build_invalid(name, f"does not have the signature of its certificate {subject}: it was changed")
    return f"{subject} (sha256:{signer.fingerprint(hashes.SHA256()).hex()})"


def _find_problem(chain: list[x509.Certificate], trust: Trust, now: datetime) -> str:
    """Return why the first certificate of a chain is not trusted; empty: it is."""
    if not trust.roots:
        return f"{trust.origin} has no root certificate"
    for certificate in chain:
        subject = certificate.subject.rfc4514_string()[:200]
        if now > certificate.not_valid_after_utc:
            return f"that of {subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        if now < certificate.not_valid_before_utc:
            return f"that of {subject} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if problem := _find_usage_problem(chain[0].extensions):
        return problem
    policy = PolicyBuilder().time(now).store(Store(list(trust.roots)))
    policy = policy.extension_policies(ca_policy=_AUTHORITY, ee_policy=ExtensionPolicy.permit_all())
    try:
        policy.build_client_verifier().verify(chain[0], chain[1:])
    except VerificationError as error:
        roots = join_some(root.subject.rfc4514_string()[:200] for root in trust.roots)
        return f"it does not lead to a root of {trust.origin} ({roots}): {str(error)[:300]}"
    return ""


def _find_usage_problem(extensions: x509.Extensions) -> str:
    """Return why a certificate may not sign models; empty: it may.

    As in the library, it is for signatures or for code; a certificate of a TLS server alone is not.
    """
    usages = list(_find(extensions, x509.KeyUsage))
    purposes = list(_find(extensions, x509.ExtendedKeyUsage))
    is_for_signatures = all(usage.digital_signature for usage in usages)
    is_for_code = all(_FOR_CODE.intersection(purpose) for purpose in purposes)
    if (usages or purposes) and is_for_signatures and is_for_code:
        return ""
    return "it is not for signatures (keyUsage digitalSignature, and extendedKeyUsage codeSigning or none)"


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> Iterable[_Extension]:
    return (extension.value for extension in extensions if isinstance(extension.value, kind))


def _require_authority(policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    del policy, certificate
    if not constraints.ca:
        raise ValueError("a certificate that is no authority's has signed another")


def _require_signing(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    del policy, certificate
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority's certificate is not for certificates")


def _require_code(policy: Policy, certificate: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    """Refuse an authority for something else, such as TLS servers: its purposes bound those of its certificates."""
    del policy, certificate
    if purposes is not None and not _FOR_CODE.intersection(purposes):
        raise ValueError("an authority's certificate is not for code (extendedKeyUsage codeSigning or none)")


_AUTHORITY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_code)
)
