"""What the storage Secret sets for an S3 store, checked key by key: no value reaches the client's library unread."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.storage_secret import invalid

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
    def secure(self) -> bool:
        """True for https."""
        return self.url.startswith("https://")


@dataclass(frozen=True)
class S3Settings:
    """An S3 store's settings; None where the Secret has no such key.

    `authorities` is PEM certificates, and nothing else. `unknown` are the Secret's keys that set nothing here.
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
    def signed(self) -> bool:
        """True if requests are signed. Without credentials the store is public."""
        return self.access_key_id is not None and not self.skip_signature


class _WrongFormError(ValueError):
    """A value that is not of its key's form; the text completes a sentence that begins with the key."""


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        message = "holds a blank, a line break or a character that is not ASCII"
        raise _WrongFormError(message)
    return text


def _password(text: str) -> str:
    if not text.isprintable():
        message = "holds a line break or another control character"
        raise _WrongFormError(message)
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        message = f"is {_shown(text)}, which is not a region"
        raise _WrongFormError(message)
    return text


def _switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        message = f"is {_shown(text)}, which is neither true nor false"
        raise _WrongFormError(message)
    return text.lower() in _TRUE


def _payer(text: str) -> bool:
    return text.lower() == "requester" or _switch(text)


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        message = f"is {_shown(text)}, which is not a URL ({error})"
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
        message = f"is {_shown(text)}, {problem or 'which names no host'}"
        raise _WrongFormError(message)
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Endpoint(url, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def _authorities(text: str) -> str:
    found = _CERTIFICATE.findall(text)
    if not found:
        kind = re.search(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
        message = f"holds {f'a {kind.group(1).lower()}' if kind else 'no PEM block'} and no certificate"
        raise _WrongFormError(message)
    for number, certificate in enumerate(found, 1):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            message = f"holds a certificate (number {number} of {len(found)}) that cannot be read"
            raise _WrongFormError(message) from None
    return "\n".join(found) + "\n"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


@dataclass(frozen=True)
class _Key:
    """A key of the Secret: the setting that it is, how its text is read, and what to write."""

    setting: str
    read: Callable[[str], Any]
    write: str


_SWITCH: Final = "Write true or false"
KEYS: Final[Mapping[str, _Key]] = {
    "AWS_ACCESS_KEY_ID": _Key("access_key_id", _token, "Write the access key's id as the store shows it"),
    "AWS_SECRET_ACCESS_KEY": _Key("secret_access_key", _password, "Write the secret key as the store shows it"),
    "AWS_SESSION_TOKEN": _Key("session_token", _token, "Write the token on one line"),
    "AWS_DEFAULT_REGION": _Key("region", _region, "Write a region such as us-east-1"),
    "AWS_REGION": _Key("region", _region, "Write a region such as us-east-1"),  # after the default, which it overrides
    "AWS_ENDPOINT_URL": _Key("endpoint", _endpoint, "Write a URL such as https://store.example:9000"),
    "AWS_ALLOW_HTTP": _Key("allow_http", _switch, _SWITCH),
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": _Key("virtual_hosted", _switch, _SWITCH),
    "AWS_SKIP_SIGNATURE": _Key("skip_signature", _switch, _SWITCH),
    "AWS_REQUEST_PAYER": _Key("request_payer", _payer, _SWITCH),
    "ca.crt": _Key("authorities", _authorities, "Write PEM certificates (-----BEGIN CERTIFICATE-----)"),
}


def parse_settings(secret: Mapping[str, str]) -> S3Settings:
    """Return the settings that a storage Secret makes.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and what to write; InsecureEndpoint
            for an http:// endpoint that is not allowed.
    """
    values: dict[str, Any] = {}
    for name, key in KEYS.items():
        if name not in secret:
            continue
        text = secret[name].strip()
        if not text:
            raise invalid(name, "is empty", f"{key.write}, or remove the key")
        try:
            values[key.setting] = key.read(text)
        except _WrongFormError as error:
            raise invalid(name, str(error), _remedy(name, text, key)) from None
    settings = S3Settings(**values, unknown=tuple(sorted(set(secret) - set(KEYS))))
    _check_credentials(settings)
    if settings.endpoint and not settings.endpoint.secure and not settings.allow_http:
        message = (
            f"AWS_ENDPOINT_URL in the storage Secret is {settings.endpoint.url}, which is plain HTTP. Write an "
            "https:// URL, or allow HTTP with AWS_ALLOW_HTTP=true."
        )
        raise Failure(Reason.INSECURE_ENDPOINT, message)
    return settings


def _remedy(name: str, text: str, key: _Key) -> str:
    if name == "AWS_ENDPOINT_URL" and re.fullmatch(r"(?!https?[:/])[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?", text):
        return f"Write https://{text}, or http://{text} with AWS_ALLOW_HTTP=true"
    return key.write


def _check_credentials(settings: S3Settings) -> None:
    """Refuse half of the credentials: the client would ask without any, or the cloud's metadata address."""
    given = {
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "AWS_SESSION_TOKEN": settings.session_token,
    }
    present = [name for name, value in given.items() if value is not None]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if present and given[name] is None:
            raise invalid(
                name, f"is absent while {' and '.join(present)} is set", f"{KEYS[name].write}, or remove both"
            )
