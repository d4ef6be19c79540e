"""The file of a signature: a Sigstore bundle (v0.3) with a DSSE envelope, in JSON.

Sources: https://docs.sigstore.dev/about/bundle/ and
https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from conch_agent.reasons import Failure, Reason
from conch_contract.parsing import parse_json

LONGEST: Final = 32 * 1024 * 1024  # bytes; a signature has some 300 for each file
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_MOST_CERTIFICATES: Final = 10
_MOST_VALUES: Final = (
    10_000  # in JSON before it is verified: the library writes some 100, and an empty list takes 88 bytes
)
_REMEDY: Final = "Sign the folder with model_signing 1.0 or later, and upload it again"


def _decode(value: Any) -> Any:
    """Return the bytes of a text in base64; other values are left to pydantic, which refuses them."""
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


_Base64 = Annotated[bytes, BeforeValidator(_decode)]


class Parsed(BaseModel):
    """A frozen value of a signature's file; fields that are not read are ignored, as the format requires."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="ignore", strict=True)


class _PublicKey(Parsed):
    hint: str | None = None


class _Certificate(Parsed):
    raw_bytes: _Base64


class _CertificateChain(Parsed):
    certificates: Annotated[list[_Certificate], Field(min_length=1, max_length=_MOST_CERTIFICATES)]


class _Material(Parsed):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _CertificateChain | None = None
    certificate: _Certificate | None = None


class _Signature(Parsed):
    sig: _Base64


class _Envelope(Parsed):
    payload: _Base64
    payload_type: str
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]


class _Bundle(Parsed):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class Envelope(BaseModel):
    """A signed payload.

    Attributes:
        payload: The payload, which is not verified yet.
        signature: The signature.
        hint: SHA-256 of the signer's public key in PEM, in hexadecimal; empty: unknown, or it has certificates.
        certificates: The signer's certificate in DER, and those up to a root; empty: there are none.
        bundle: The whole file of a signature of an identity; empty: it is that of a key or of a certificate.
    """

    model_config = ConfigDict(frozen=True)

    payload: bytes
    signature: bytes
    hint: str = ""
    certificates: tuple[bytes, ...] = ()
    bundle: bytes = b""

    @property
    def message(self) -> bytes:
        """What is signed: the pre-authentication encoding (PAE) of DSSE.

        >>> Envelope(payload=b"{}", signature=b"").message
        b'DSSEv1 28 application/vnd.in-toto+json 2 {}'
        """
        kind = PAYLOAD_TYPE.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


def build_invalid(name: str, problem: str, remedy: str = _REMEDY) -> Failure:
    """Return the failure of a signature that cannot be verified.

    Args:
        name: The storageUri and the path of the signature, with which the message begins.
        problem: The problem, which continues a sentence that begins with the name.
        remedy: The remedy, a sentence without its full stop.
    """
    return Failure(Reason.INVALID_SIGNATURE, f"{name} {problem}. {remedy}.")


_Part = TypeVar("_Part", bound=Parsed)


def parse_part(kind: type[_Part], text: bytes, name: str, what: str) -> _Part:
    """Return the value of a JSON text.

    Args:
        kind: The type of the value.
        text: The text.
        name: The storageUri and the path of the signature.
        what: The text's name in messages.

    Raises:
        Failure: InvalidSignature.
    """
    try:
        return kind.model_validate(parse_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise build_invalid(name, f"is not {what}: {field}: {first['msg']}") from None
    except ValueError as error:
        raise build_invalid(name, f"is not {what}: it is no JSON ({error})") from None


def parse_bundle(content: bytes, name: str) -> Envelope:
    """Return the envelope of a signature's file.

    Args:
        content: The file, of at most LONGEST bytes.
        name: The storageUri and the path of the signature, with which messages begin.

    Raises:
        Failure: InvalidSignature.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise build_invalid(name, f"is not a signature: it has over {_MOST_VALUES} JSON values")
    bundle = parse_part(_Bundle, content, name, "a signature")
    material, envelope = bundle.verification_material, bundle.dsse_envelope
    if bundle.media_type != MEDIA_TYPE:
        raise build_invalid(name, f"has the media type {bundle.media_type[:100]!r}, and {MEDIA_TYPE!r} is expected")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise build_invalid(name, f"has a payload of {envelope.payload_type[:100]!r}; {PAYLOAD_TYPE!r} is expected")
    chain = material.x509_certificate_chain
    if not (chain or material.public_key or material.certificate):
        raise build_invalid(name, "has neither the id of a key nor a certificate")
    return Envelope(
        payload=envelope.payload,
        signature=envelope.signatures[0].sig,
        hint=(material.public_key.hint or "") if material.public_key else "",
        certificates=tuple(certificate.raw_bytes for certificate in chain.certificates) if chain else (),
        bundle=content if material.certificate else b"",
    )
