"""The settings of an S3 store in the storage Secret. All values are checked before the client's library has them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.storage_secret import build_invalid_secret

_TRUE: Final = frozenset({"true", "1", "yes", "y", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "n", "off"})
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_LONGEST_SHOWN: Final = 80


@dataclass(frozen=True)
class Endpoint:
    """The store's address; `url` has no slash at its end."""

    url: str
    host: str
    port: int

    @property
    def is_secure(self) -> bool:
        """True for https."""
        return self.url.startswith("https://")


@dataclass(frozen=True)
class S3Settings:
    """The settings of an S3 store. None: the Secret has no such key.

    Attributes:
        access_key_id: Id of the access key.
        secret_access_key: The secret access key.
        session_token: Token of temporary credentials.
        region: The region.
        endpoint: The store's address.
        allow_http: True to allow an endpoint without TLS.
        virtual_hosted: True to put the bucket into the host name.
        skip_signature: True to send no credentials.
        request_payer: True to pay for requests.
        authorities: PEM certificates, without other text.
        unknown: The Secret's keys that set nothing here.
    """

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None
    endpoint: Endpoint | None = None
    allow_http: bool = False
    virtual_hosted: bool = False
    skip_signature: bool = False
    request_payer: bool = False
    authorities: str | None = None
    unknown: tuple[str, ...] = ()

    @property
    def is_signed(self) -> bool:
        """True if requests are signed. Without credentials the store is public."""
        return self.access_key_id is not None and not self.skip_signature


class _WrongFormError(ValueError):
    """A value without the form of its key. The text continues a sentence that begins with the key."""


def _parse_token(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        message = "holds a blank, a line break or a character that is not ASCII"
        raise _WrongFormError(message)
    return text


def _parse_password(text: str) -> str:
    if not text.isprintable():
        message = "holds a line break or another control character"
        raise _WrongFormError(message)
    return text


def _parse_region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        message = f"is {_format_value(text)}, which is not a region"
        raise _WrongFormError(message)
    return text


def _parse_switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        message = f"is {_format_value(text)}, which is neither true nor false"
        raise _WrongFormError(message)
    return text.lower() in _TRUE


def _parse_payer(text: str) -> bool:
    return text.lower() == "requester" or _parse_switch(text)


def _parse_endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        message = f"is {_format_value(text)}, which is not a URL ({error})"
        raise _WrongFormError(message) from None
    problem = ""
    if not re.fullmatch(r"[!-~]+", text):
        problem = "which holds a blank or a character that is not ASCII"
    elif parts.scheme not in {"http", "https"} or not text.lower().startswith(f"{parts.scheme}://"):
        problem = "which does not begin with http:// or https://"
    elif parts.username is not None:
        problem = "which holds a user; credentials have keys of their own"
    elif parts.query or parts.fragment or text.endswith(("?", "#")):
        problem = "which holds '?' or '#'"
    elif not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", parts.netloc.removesuffix(f":{port}").rstrip(":")):
        problem = "which names no host"
    elif port == 0:
        problem = "whose port is 0"
    if problem or not parts.hostname:
        message = f"is {_format_value(text)}, {problem or 'which names no host'}"
        raise _WrongFormError(message)
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Endpoint(url, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def _parse_authorities(text: str) -> str:
    certificates = _CERTIFICATE.findall(text)
    if not certificates:
        kind = re.search(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
        message = f"holds {f'a {kind.group(1).lower()}' if kind else 'no PEM block'} and no certificate"
        raise _WrongFormError(message)
    for number, certificate in enumerate(certificates, 1):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            message = f"holds a certificate (number {number} of {len(certificates)}) that cannot be read"
            raise _WrongFormError(message) from None
    return "\n".join(certificates) + "\n"


def _format_value(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


@dataclass(frozen=True)
class _Key:
    """A key of the Secret: its setting, the parser of its text, and the remedy for an invalid value."""

    setting: str
    parse: Callable[[str], Any]
    write: str


_SWITCH: Final = "Write true or false"
KEYS: Final[Mapping[str, _Key]] = {
    "AWS_ACCESS_KEY_ID": _Key("access_key_id", _parse_token, "Write the access key's id as the store shows it"),
    "AWS_SECRET_ACCESS_KEY": _Key("secret_access_key", _parse_password, "Write the secret key as the store shows it"),
    "AWS_SESSION_TOKEN": _Key("session_token", _parse_token, "Write the token on one line"),
    "AWS_DEFAULT_REGION": _Key("region", _parse_region, "Write a region such as us-east-1"),
    "AWS_REGION": _Key(
        "region", _parse_region, "Write a region such as us-east-1"
    ),  # after the default, which it overrides
    "AWS_ENDPOINT_URL": _Key("endpoint", _parse_endpoint, "Write a URL such as https://store.example:9000"),
    "AWS_ALLOW_HTTP": _Key("allow_http", _parse_switch, _SWITCH),
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": _Key("virtual_hosted", _parse_switch, _SWITCH),
    "AWS_SKIP_SIGNATURE": _Key("skip_signature", _parse_switch, _SWITCH),
    "AWS_REQUEST_PAYER": _Key("request_payer", _parse_payer, _SWITCH),
    "ca.crt": _Key("authorities", _parse_authorities, "Write PEM certificates (-----BEGIN CERTIFICATE-----)"),
}


def parse_settings(secret: Mapping[str, str]) -> S3Settings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy; InsecureEndpoint for an
            http:// endpoint that is not allowed.
    """
    values: dict[str, Any] = {}
    for name, key in KEYS.items():
        if name not in secret:
            continue
        text = secret[name].strip()
        if not text:
            raise build_invalid_secret(name, "is empty", f"{key.write}, or remove the key")
        try:
            values[key.setting] = key.parse(text)
        except _WrongFormError as error:
            raise build_invalid_secret(name, str(error), _find_remedy(name, text, key)) from None
    settings = S3Settings(**values, unknown=tuple(sorted(set(secret) - set(KEYS))))
    _check_credentials(settings)
    if settings.endpoint and not settings.endpoint.is_secure and not settings.allow_http:
        message = (
            f"AWS_ENDPOINT_URL in the storage Secret is {settings.endpoint.url}, which is plain HTTP. Write an "
            "https:// URL, or allow HTTP with AWS_ALLOW_HTTP=true."
        )
        raise Failure(Reason.INSECURE_ENDPOINT, message)
    return settings


def _find_remedy(name: str, text: str, key: _Key) -> str:
    if name == "AWS_ENDPOINT_URL" and re.fullmatch(r"(?!https?[:/])[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?", text):
        return f"Write https://{text}, or http://{text} with AWS_ALLOW_HTTP=true"
    return key.write


def _check_credentials(settings: S3Settings) -> None:
    """Refuse incomplete credentials, which the client would ignore or replace by those of the metadata server."""
    credentials = {
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "AWS_SESSION_TOKEN": settings.session_token,
    }
    present = [name for name, value in credentials.items() if value is not None]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if present and credentials[name] is None:
            raise build_invalid_secret(
                name, f"is absent while {' and '.join(present)} is set", f"{KEYS[name].write}, or remove both"
            )
