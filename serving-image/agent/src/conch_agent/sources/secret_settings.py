"""Settings in a storage Secret: the parsers of their values, which refuse a value with its key and a remedy."""

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
_BARE_ENDPOINT: Final = re.compile(r"(?!https?[:/])[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?")
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


class WrongFormError(ValueError):
    """A value without the form of its key. The text continues a sentence that begins with the key."""


@dataclass(frozen=True)
class Key:
    """A key of the Secret.

    Attributes:
        setting: Name of its setting.
        parse: Parser of its text, which raises WrongFormError.
        write: Remedy for an invalid value, a sentence without its full stop.
        http_key: Of an endpoint: the key that allows http.
    """

    setting: str
    parse: Callable[[str], Any]
    write: str
    http_key: str = ""


def parse_values(secret: Mapping[str, str], keys: Mapping[str, Key]) -> dict[str, Any]:
    """Return the settings of a Secret by their names; a later key overrides an earlier one of the same setting.

    Args:
        secret: Values of the Secret by key.
        keys: The keys that the scheme takes.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy.
    """
    values: dict[str, Any] = {}
    for name, key in keys.items():
        if name not in secret:
            continue
        text = secret[name].strip()
        if not text:
            raise build_invalid_secret(name, "is empty", f"{key.write}, or remove the key")
        try:
            values[key.setting] = key.parse(text)
        except WrongFormError as error:
            raise build_invalid_secret(name, str(error), _find_remedy(text, key)) from None
    return values


def check_encryption(name: str, key: Key, endpoint: Endpoint | None, *, allow_http: bool) -> None:
    """Refuse an endpoint without TLS, unless the Secret allows it.

    Args:
        name: Name of the endpoint's key.
        key: The key.
        endpoint: The endpoint; None: the Secret has none.
        allow_http: True if the Secret allows http.

    Raises:
        Failure: InsecureEndpoint.
    """
    if endpoint and not endpoint.is_secure and not allow_http:
        message = (
            f"{name} in the storage Secret is {endpoint.url}, which is plain HTTP. Write an https:// URL, or allow "
            f"HTTP with {key.http_key}=true."
        )
        raise Failure(Reason.INSECURE_ENDPOINT, message)


def parse_token(text: str) -> str:
    """Return a token: ASCII without blanks.

    Args:
        text: The text.

    Raises:
        WrongFormError: The text has another form.
    """
    if not re.fullmatch(r"[!-~]+", text):
        message = "holds a blank, a line break or a character that is not ASCII"
        raise WrongFormError(message)
    return text


def parse_switch(text: str) -> bool:
    """Return the value of a switch.

    Args:
        text: The text.

    Raises:
        WrongFormError: The text has another form.
    """
    if text.lower() not in _TRUE | _FALSE:
        message = f"is {format_value(text)}, which is neither true nor false"
        raise WrongFormError(message)
    return text.lower() in _TRUE


def parse_endpoint(text: str) -> Endpoint:
    """Return the address of a store: an http or https URL without user, query and fragment.

    Args:
        text: The text.

    Raises:
        WrongFormError: The text has another form.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        message = f"is {format_value(text)}, which is not a URL ({error})"
        raise WrongFormError(message) from None
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
        message = f"is {format_value(text)}, {problem or 'which names no host'}"
        raise WrongFormError(message)
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Endpoint(url, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def parse_authorities(text: str) -> str:
    """Return the PEM certificates of a text, without other text.

    Args:
        text: The text.

    Raises:
        WrongFormError: The text has another form.
    """
    certificates = _CERTIFICATE.findall(text)
    if not certificates:
        kind = re.search(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
        message = f"holds {f'a {kind.group(1).lower()}' if kind else 'no PEM block'} and no certificate"
        raise WrongFormError(message)
    for number, certificate in enumerate(certificates, 1):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            message = f"holds a certificate (number {number} of {len(certificates)}) that cannot be read"
            raise WrongFormError(message) from None
    return "\n".join(certificates) + "\n"


def format_value(text: str) -> str:
    """Return a value as messages show it: in quotes, and of bounded length.

    Args:
        text: The text.
    """
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def _find_remedy(text: str, key: Key) -> str:
    if key.http_key and _BARE_ENDPOINT.fullmatch(text):
        return f"Write https://{text}, or http://{text} with {key.http_key}=true"
    return key.write
