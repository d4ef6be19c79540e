"""Settings of sources in the storage Secret: the forms of values, and the address of a store or hub."""

from __future__ import annotations

import ipaddress
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
_LONGEST_HOST: Final = 253  # characters of a DNS name (RFC 1035)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)

# Remedies of keys that stores have in common.
WRITE_SWITCH: Final = "Write true or false"
WRITE_ENDPOINT: Final = "Write a URL such as https://store.example:9000"
WRITE_CERTIFICATES: Final = "Write PEM certificates (-----BEGIN CERTIFICATE-----)"


@dataclass(frozen=True)
class Endpoint:
    """The address of a store or hub; `url` has no slash at its end."""

    url: str
    host: str
    port: int

    @property
    def is_secure(self) -> bool:
        """True for https."""
        return self.url.startswith("https://")


class WrongFormError(ValueError):
    """A value without the form of its key. The text continues a sentence that begins with the key.

    Attributes:
        write: The remedy, a sentence without its full stop; empty: that of the key.
    """

    def __init__(self, text: str, write: str = "") -> None:
        """Create the error; the arguments are as in the attributes."""
        super().__init__(text)
        self.write = write


def parse_token(text: str) -> str:
    """Return a token.

    Args:
        text: ASCII without blanks.

    Raises:
        WrongFormError: It has other characters.
    """
    if not re.fullmatch(r"[!-~]+", text):
        message = "holds a blank, a line break or a character that is not ASCII"
        raise WrongFormError(message)
    return text


def parse_password(text: str) -> str:
    """Return a password, which may have blanks.

    Args:
        text: Printable characters.

    Raises:
        WrongFormError: It has other characters.
    """
    if not text.isprintable():
        message = "holds a line break or another control character"
        raise WrongFormError(message)
    return text


def parse_switch(text: str) -> bool:
    """Return the value of a switch.

    Args:
        text: true or false, or another usual word for one of them.

    Raises:
        WrongFormError: It is neither.
    """
    if text.lower() not in _TRUE | _FALSE:
        message = f"is {format_value(text)}, which is neither true nor false"
        raise WrongFormError(message)
    return text.lower() in _TRUE


def parse_endpoint(text: str, allow_key: str) -> Endpoint:
    """Return the address of a store.

    Args:
        text: A URL with http:// or https://, without user, query and fragment.
        allow_key: The Secret's key that allows HTTP.

    Raises:
        WrongFormError: It is no such URL.
    """
    write = ""
    if re.fullmatch(r"(?!https?[:/])[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?", text):
        write = f"Write https://{text}, or http://{text} with {allow_key}=true"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        message = f"is {format_value(text)}, which is not a URL ({error})"
        raise WrongFormError(message, write) from None
    problem = ""
    if not re.fullmatch(r"[!-~]+", text):
        problem = "which holds a blank or a character that is not ASCII"
    elif parts.scheme not in {"http", "https"} or not text.lower().startswith(f"{parts.scheme}://"):
        problem = "which does not begin with http:// or https://"
    elif parts.username is not None:
        problem = "which holds a user; credentials have keys of their own"
    elif parts.query or parts.fragment or text.endswith(("?", "#")):
        problem = "which holds '?' or '#'"
    elif not _is_host(parts.netloc.removesuffix(f":{port}").removesuffix(":")):
        problem = "which names no host: it has neither a DNS name nor an IP address there"
    elif port == 0:
        problem = "whose port is 0"
    if problem or not parts.hostname:
        message = f"is {format_value(text)}, {problem or 'which names no host'}"
        raise WrongFormError(message, write)
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Endpoint(url, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def _is_host(text: str) -> bool:
    """Return True for a DNS name, an IPv4 address, or an IPv6 address in brackets, without a zone of the node."""
    *labels, last = text.removesuffix(".").split(".")
    try:
        if text.startswith("["):
            return text.endswith("]") and "%" not in text and bool(ipaddress.IPv6Address(text[1:-1]))
        # A name whose last label is a number is read as an IPv4 address (https://url.spec.whatwg.org/#host-parsing).
        if re.fullmatch(r"\d+|0[xX][0-9A-Fa-f]*", last):
            return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False
    return len(text) <= _LONGEST_HOST and all(_is_label(label) for label in [*labels, last])


def _is_label(text: str) -> bool:
    """Return True for a label of a DNS name. One that begins with xn-- has to be an international one (RFC 5890)."""
    if not _LABEL.fullmatch(text):
        return False
    try:
        return not text.lower().startswith("xn--") or bool(text.lower().encode().decode("idna"))
    except ValueError:
        return False


def parse_authorities(text: str) -> str:
    """Return the certificates of a PEM text, without other text.

    Args:
        text: The PEM text.

    Raises:
        WrongFormError: It has no certificate, or one that cannot be read.
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
    """Return a value for a message, shortened.

    Args:
        text: The value, which is no credential.
    """
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


@dataclass(frozen=True)
class SettingKey:
    """A key of the Secret: its setting, the parser of its text, and the remedy for an invalid value."""

    setting: str
    parse: Callable[[str], Any]
    write: str


def parse_values(secret: Mapping[str, str], keys: Mapping[str, SettingKey]) -> dict[str, Any]:
    """Return the settings of the Secret's values, by the names of settings. Keys that are not in the table set nothing.

    Args:
        secret: Values of the Secret by key.
        keys: The table of keys. Where two keys have the same setting, the later one overrides the earlier one.

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
            raise build_invalid_secret(name, str(error), error.write or key.write) from None
    return values


def check_plain_http(endpoint: Endpoint | None, key: str, allow_key: str, *, allowed: bool) -> None:
    """Refuse an endpoint without TLS that is not allowed.

    Args:
        endpoint: The endpoint; None: the provider's own, which has TLS.
        key: The Secret's key of the endpoint.
        allow_key: The Secret's key that allows HTTP.
        allowed: The value of that key.

    Raises:
        Failure: InsecureEndpoint.
    """
    if endpoint and not endpoint.is_secure and not allowed:
        message = (
            f"{key} in the storage Secret is {endpoint.url}, which is plain HTTP. Write an https:// URL, or allow HTTP "
            f"with {allow_key}=true."
        )
        raise Failure(Reason.INSECURE_ENDPOINT, message)
