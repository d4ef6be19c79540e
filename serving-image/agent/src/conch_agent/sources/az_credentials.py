"""The credentials of Azure Blob Storage: a key of the account, a shared access signature, or an identity."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from conch_agent.sources.secret_settings import Endpoint, WrongFormError, format_value, parse_password, parse_token

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_KEY_BYTES: Final = 64  # of a key that Azure makes
# Fields of a SAS, the letters that they need for the listing and the reading of blobs, and what is missing without
# them. The fields are in https://learn.microsoft.com/rest/api/storageservices/delegate-access-with-shared-access-signature
_NEEDED: Final = (
    ("sp", "rl", "has not both permissions, to read (r) and to list (l)", "--permissions rl"),
    ("ss", "b", "is not of the blob service (b)", "--services b"),
    ("srt", "co", "is not of containers (c) and objects (o)", "--resource-types co"),
)
_RESOURCES: Final = frozenset({"c", "d"})  # of a SAS that may list: a container, or a folder of Data Lake Storage


@dataclass(frozen=True)
class AccountKey:
    """A key of a storage account, in base64, with which the client signs its requests."""

    key: str


@dataclass(frozen=True)
class Sas:
    """A shared access signature: a query, without its question mark, which the client adds to its requests."""

    token: str


@dataclass(frozen=True)
class ServicePrincipal:
    """An application of Microsoft Entra ID.

    Attributes:
        tenant: Id of the tenant, or a domain of it.
        client_id: Id of the application.
        client_secret: A client secret of it.
        authority: The server of its tokens.
    """

    tenant: str
    client_id: str
    client_secret: str
    authority: Endpoint


@dataclass(frozen=True)
class FederatedIdentity:
    """An identity of Microsoft Entra ID that trusts the service account of the pod.

    Attributes:
        tenant: Id of the tenant, or a domain of it.
        client_id: Id of the application or managed identity.
        token: The file with the service account's token, which is renewed.
        authority: The server of its tokens.
    """

    tenant: str
    client_id: str
    token: Path
    authority: Endpoint


Credential = AccountKey | Sas | ServicePrincipal | FederatedIdentity


def parse_account_key(text: str) -> AccountKey:
    """Return a key of a storage account.

    Args:
        text: The key in base64.

    Raises:
        WrongFormError: It is no base64, or other credentials.
    """
    if "AccountKey=" in text:
        message = "is a connection string"
        raise WrongFormError(message, "Write what follows AccountKey= in it, up to the next semicolon")
    if "sig=" in text:
        message = "is a SAS token"
        raise WrongFormError(message, "Write it as AZURE_STORAGE_SAS_TOKEN")
    decoded = _decode(text)
    if not decoded:
        message = "is no base64"
        raise WrongFormError(message)
    if decoded.isascii() and len(_decode(decoded.decode("ascii"))) == _KEY_BYTES:
        message = "was encoded twice"
        raise WrongFormError(message, "Write the key as Azure shows it under stringData, or once in base64 under data")
    return AccountKey(text)


def _decode(text: str) -> bytes:
    """Return the bytes of base64; empty for another text."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def parse_sas(text: str) -> Sas:
    """Return a shared access signature that permits listing and reading.

    Args:
        text: The signature, with or without the question mark before it.

    Raises:
        WrongFormError: It is no such signature. The message has no value of it.
    """
    token = parse_token(text).removeprefix("?")
    if re.match(r"https?://", token):
        message = "is a URL"
        raise WrongFormError(message, "Write what follows the question mark in it")
    if "&amp;" in token:
        message = "has &amp; in place of &"
        raise WrongFormError(message, "Write & in its place")
    try:
        fields = dict(parse_qsl(token, strict_parsing=True, errors="strict"))
    except ValueError:
        fields = {}
    if not fields.get("sig"):
        message = "is no SAS token: it has no signature (sig=)"
        raise WrongFormError(message)
    for name, letters, what, option in _NEEDED:
        if name in fields and not set(letters) <= set(fields[name]):
            raise WrongFormError(what, f"Make one with {option}")
    if fields.get("sr", "c") not in _RESOURCES:
        message = "is of one blob, and the agent lists the container"
        raise WrongFormError(message)
    return Sas(token)


def parse_tenant(text: str) -> str:
    """Return the id of a tenant, or a domain of it.

    Args:
        text: A GUID or a host name.

    Raises:
        WrongFormError: It is neither.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", text):
        message = f"is {format_value(text)}, which is neither an id nor a domain"
        raise WrongFormError(message)
    return text


def parse_client_id(text: str) -> str:
    """Return the id of an application.

    Args:
        text: A GUID.

    Raises:
        WrongFormError: It is none.
    """
    if not _GUID.fullmatch(text):
        message = f"is {format_value(text)}, which is no GUID"
        raise WrongFormError(message)
    return text


def parse_client_secret(text: str) -> str:
    """Return a client secret.

    Args:
        text: The secret.

    Raises:
        WrongFormError: It has a control character, or is the id of a secret.
    """
    if _GUID.fullmatch(text):
        message = "is a GUID, as the id of a client secret is"
        raise WrongFormError(message)
    return parse_password(text)
