"""The settings of Google Cloud Storage in the storage Secret. All values are checked before the client has them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.secret_settings import (
    WRITE_ENDPOINT,
    WRITE_SWITCH,
    Endpoint,
    SettingKey,
    WrongFormError,
    check_plain_http,
    format_value,
    parse_endpoint,
    parse_switch,
    parse_values,
)
from conch_contract.parsing import parse_json

ACCOUNT_KEY: Final = "GOOGLE_SERVICE_ACCOUNT_KEY"
POD_IDENTITY: Final = "GOOGLE_POD_IDENTITY"
WRITE_ACCOUNT_KEY: Final = (
    "Write the JSON key of a service account, the file that gcloud iam service-accounts keys create makes"
)
_UNIVERSE: Final = "googleapis.com"
_PEM: Final = re.compile(
    r"\s*-----BEGIN (?:RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (?:RSA )?PRIVATE KEY-----\s*"
)
# Fields by which other tools set the client: the key only signs.
_REFUSED_FIELDS: Final = {
    "gcs_base_url": "Write the endpoint as GOOGLE_BASE_URL of the Secret, and remove the field",
    "disable_oauth": f"Remove {ACCOUNT_KEY}: without it requests are not signed",
}


@dataclass(frozen=True)
class AccountKey:
    """A key of a service account, with which the client signs its requests itself (https://google.aip.dev/auth/4111).

    Attributes:
        client_email: The service account.
        private_key_id: Id of the key.
        private_key: The RSA key as PEM.
    """

    client_email: str
    private_key_id: str
    private_key: str

    def to_json(self) -> str:
        """Return the key as the client reads it, without the other fields of Google's file."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class GsSettings(NetworkSettings):
    """The settings of Google Cloud Storage. None: the Secret has no such key.

    Attributes:
        account_key: Key of the service account; None: the bucket is public, or the pod's identity reads it.
        pod_identity: True to read with the identity of the pod, where there is no key.
        endpoint: The store's address.
        allow_http: True to allow an endpoint without TLS.
        unknown: The Secret's keys that set nothing here.
    """

    account_key: AccountKey | None = None
    pod_identity: bool = False
    endpoint: Endpoint | None = None
    allow_http: bool = False
    unknown: tuple[str, ...] = ()


def _parse_account_key(text: str) -> AccountKey:
    fields = _parse_object(text)
    kind = fields.get("type")
    if kind != "service_account":
        found = f"has the type {format_value(kind)}" if isinstance(kind, str) else "has no type"
        message = f"{found}, and 'service_account' was expected"
        raise WrongFormError(message)
    for name, write in _REFUSED_FIELDS.items():
        if name in fields:
            message = f"has the field {name}, which Conch does not take"
            raise WrongFormError(message, write)
    universe = fields.get("universe_domain", _UNIVERSE)
    if universe != _UNIVERSE:
        message = f"is of the universe_domain {format_value(str(universe))}, and only {_UNIVERSE} is supported"
        raise WrongFormError(message, f"Write a key of a service account of {_UNIVERSE}")
    key = AccountKey(*(_read_field(fields, name) for name in ("client_email", "private_key_id", "private_key")))
    _check_pem(key.private_key)
    return key


def _parse_object(text: str) -> dict[str, Any]:
    try:
        fields = parse_json(text)
    except ValueError:
        if _is_base64_of_json(text):
            message = "is base64 of JSON, so it was encoded twice"
            raise WrongFormError(message, "Write the JSON under stringData, or once in base64 under data") from None
        if re.fullmatch(r"[!-~]+", text) and "{" not in text:
            message = "is no JSON, but one word"
            raise WrongFormError(message, f"{WRITE_ACCOUNT_KEY}, not its path or a key's id") from None
        message = "is no JSON"
        raise WrongFormError(message) from None
    if not isinstance(fields, dict):
        message = "is JSON, but no object"
        raise WrongFormError(message)
    return fields


def _is_base64_of_json(text: str) -> bool:
    try:
        return base64.b64decode("".join(text.split()), validate=True).lstrip().startswith(b"{")
    except (ValueError, binascii.Error):
        return False


def _read_field(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        message = f"has no {name}"
        raise WrongFormError(message)
    return value


def _check_pem(text: str) -> None:
    match = _PEM.fullmatch(text)
    try:
        is_pem = bool(match and base64.b64decode("".join(match[1].split()), validate=True))
    except (ValueError, binascii.Error):
        is_pem = False
    if is_pem:
        return
    if "\\n" in text:
        message = r"has a private_key in which each line break is the two letters \n"
        raise WrongFormError(message, r"Write the file as it is: in its JSON a line break is \n, not \\n")
    message = "has a private_key that is no PEM block of a private key (-----BEGIN PRIVATE KEY-----)"
    raise WrongFormError(message)


def _parse_endpoint(text: str) -> Endpoint:
    return parse_endpoint(text, "GOOGLE_ALLOW_HTTP")


KEYS: Final[Mapping[str, SettingKey]] = {
    ACCOUNT_KEY: SettingKey("account_key", _parse_account_key, WRITE_ACCOUNT_KEY),
    POD_IDENTITY: SettingKey("pod_identity", parse_switch, WRITE_SWITCH),
    "GOOGLE_BASE_URL": SettingKey("endpoint", _parse_endpoint, WRITE_ENDPOINT),
    "GOOGLE_ALLOW_HTTP": SettingKey("allow_http", parse_switch, WRITE_SWITCH),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str]) -> GsSettings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key and the remedy; InsecureEndpoint for an http:// endpoint that is not
            allowed.
    """
    settings = GsSettings(**parse_values(secret, KEYS), unknown=tuple(sorted(set(secret) - set(KEYS))))
    check_plain_http(settings.endpoint, "GOOGLE_BASE_URL", "GOOGLE_ALLOW_HTTP", allowed=settings.allow_http)
    return settings


def takes_identity(secret: Mapping[str, str]) -> bool:
    """Return True if the identity of this pod reads a source.

    Args:
        secret: Values of the storage Secret by key.

    Raises:
        Failure: InvalidSecret.
    """
    settings = parse_settings(secret)
    return settings.pod_identity and settings.account_key is None
