"""The settings of Azure Blob Storage in the storage Secret. All values are checked before the client has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conch_agent.sources.az_credentials import (
    AccountKey,
    Credential,
    FederatedIdentity,
    Sas,
    ServicePrincipal,
    parse_account_key,
    parse_client_id,
    parse_client_secret,
    parse_sas,
    parse_tenant,
)
from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.pod_identity import has_variables, read_variable
from conch_agent.sources.secret_settings import (
    WRITE_SWITCH,
    Endpoint,
    SettingKey,
    WrongFormError,
    check_plain_http,
    format_value,
    parse_endpoint,
    parse_switch,
    parse_token,
    parse_values,
)
from conch_agent.sources.storage_secret import build_invalid_secret

AUTHORITY: Final = Endpoint("https://login.microsoftonline.com", "login.microsoftonline.com", 443)

IDENTITY: Final = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")  # that Azure adds to pods

_WRITE_KEY: Final = "Write a key of the storage account, as az storage account keys list prints it"
_WRITE_SAS: Final = (
    "Write the SAS token of a container, as az storage container generate-sas --permissions rl prints it"
)
_WRITE_ENDPOINT: Final = "Write a URL such as https://account.blob.core.windows.net"
_WRITE_IDENTITY: Final = (
    "Correct azure.workload.identity/client-id and tenant-id of its service account, or the webhook"
)
_WRITE_NAME: Final = "Write the name of the storage account"
# The Secret's keys of each kind of credentials, by their settings.
_KINDS: Final[tuple[Mapping[str, str], ...]] = (
    {"account_key": "AZURE_STORAGE_ACCOUNT_KEY"},
    {"sas": "AZURE_STORAGE_SAS_TOKEN"},
    {"tenant": "AZURE_TENANT_ID", "client_id": "AZURE_CLIENT_ID", "client_secret": "AZURE_CLIENT_SECRET"},
)


@dataclass(frozen=True)
class AzSettings(NetworkSettings):
    """The settings of Azure Blob Storage. None: the Secret has no such key.

    Attributes:
        credential: The credentials; None: the container is public.
        endpoint: The address of the account.
        allow_http: True to allow an endpoint without TLS.
        skip_signature: True to send no credentials.
        unknown: The Secret's keys that set nothing here.
    """

    credential: Credential | None = None
    endpoint: Endpoint | None = None
    allow_http: bool = False
    skip_signature: bool = False
    unknown: tuple[str, ...] = ()


def _parse_endpoint(text: str) -> Endpoint:
    endpoint = parse_endpoint(text, "AZURE_ALLOW_HTTP")
    if re.search(r"\.dfs\.[a-z.]+$", endpoint.host):
        message = f"is {format_value(text)}, the address of Data Lake Storage"
        raise WrongFormError(message, f"Write {endpoint.url.replace('.dfs.', '.blob.')}")
    return endpoint


def _parse_authority(text: str) -> Endpoint:
    """Return the authority, which may be without its scheme, as Azure's own libraries take it."""
    endpoint = parse_endpoint(text if "://" in text else f"https://{text}", "")
    if not endpoint.is_secure:
        message = f"is {format_value(text)}, which is plain HTTP, and credentials are sent there"
        raise WrongFormError(message)
    return endpoint


KEYS: Final[Mapping[str, SettingKey]] = {
    "AZURE_STORAGE_ACCOUNT_NAME": SettingKey("account", parse_token, _WRITE_NAME),
    "AZURE_STORAGE_ACCESS_KEY": SettingKey("account_key", parse_account_key, _WRITE_KEY),
    "AZURE_STORAGE_ACCOUNT_KEY": SettingKey("account_key", parse_account_key, _WRITE_KEY),
    "AZURE_STORAGE_SAS_KEY": SettingKey("sas", parse_sas, _WRITE_SAS),
    "AZURE_STORAGE_SAS_TOKEN": SettingKey("sas", parse_sas, _WRITE_SAS),
    "AZURE_TENANT_ID": SettingKey("tenant", parse_tenant, "Write the id of the tenant, or a domain of it"),
    "AZURE_CLIENT_ID": SettingKey("client_id", parse_client_id, "Write the application (client) id, a GUID"),
    "AZURE_CLIENT_SECRET": SettingKey(
        "client_secret", parse_client_secret, "Write the value of a client secret, which Azure shows once"
    ),
    "AZURE_AUTHORITY_HOST": SettingKey("authority", _parse_authority, f"Write a URL such as {AUTHORITY.url}"),
    "AZURE_STORAGE_ENDPOINT": SettingKey("endpoint", _parse_endpoint, _WRITE_ENDPOINT),
    "AZURE_ALLOW_HTTP": SettingKey("allow_http", parse_switch, WRITE_SWITCH),
    "AZURE_SKIP_SIGNATURE": SettingKey("skip_signature", parse_switch, WRITE_SWITCH),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str], account: str) -> AzSettings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.
        account: The account of storageUri.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy; InsecureEndpoint for an
            http:// endpoint that is not allowed.
    """
    values = parse_values(secret, KEYS)
    _check_account(values.pop("account", account), account)
    _check_kinds(values)
    settings = AzSettings(_pop_credential(values), **values, unknown=tuple(sorted(set(secret) - set(KEYS))))
    check_plain_http(settings.endpoint, "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP", allowed=settings.allow_http)
    return settings


def _check_account(named: str, account: str) -> None:
    if named != account:
        what = f"is {format_value(named)}, and storageUri has the account {account!r}"
        remedy = "storageUri is az://account/container/prefix: correct it, or the key"
        raise build_invalid_secret("AZURE_STORAGE_ACCOUNT_NAME", what, remedy)


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Refuse several credentials and incomplete ones, of which the client would ignore some."""
    present = [(kind, [kind[setting] for setting in kind if setting in values]) for kind in _KINDS]
    used = [(kind, names) for kind, names in present if names]
    if len(used) > 1:
        (_, (first, *_)), (_, (second, *_)), *_ = used
        raise build_invalid_secret(first, f"is beside {second}", "Keep one kind of credentials, and remove the other")
    for kind, names in used:
        for name in kind.values():
            if name not in names:
                what = f"is absent while {' and '.join(names)} is set"
                raise build_invalid_secret(name, what, f"{KEYS[name].write}, or remove the others")


def _pop_credential(values: dict[str, Any]) -> Credential | None:
    """Return the credentials, and remove them from the settings."""
    authority: Endpoint | None = values.pop("authority", None)
    key: AccountKey | None = values.pop("account_key", None)
    sas: Sas | None = values.pop("sas", None)
    names = ("tenant", "client_id", "client_secret")
    tenant, client_id, client_secret = (values.pop(name, None) for name in names)
    if values.get("skip_signature"):
        return None
    if client_secret:
        return ServicePrincipal(tenant, client_id, client_secret, authority or AUTHORITY)
    return key or sas or _find_identity(authority, has_endpoint="endpoint" in values)


def _find_identity(authority: Endpoint | None, *, has_endpoint: bool) -> FederatedIdentity | None:
    """Return the identity of the pod; None: the container has none, or the endpoint may be another store's.

    A token is sent as it is, so that a server that has it can use it: one that is named needs its authority beside it.

    Args:
        authority: The server of tokens in the storage Secret; None: that of the pod.
        has_endpoint: True if the Secret has an endpoint.

    Raises:
        Failure: AccessDenied: a variable of the identity has another form.
    """
    if not has_variables(*IDENTITY) or (has_endpoint and authority is None):
        return None
    tenant = read_variable("AZURE_TENANT_ID", parse_tenant, _WRITE_IDENTITY)
    client_id = read_variable("AZURE_CLIENT_ID", parse_client_id, _WRITE_IDENTITY)
    token = read_variable("AZURE_FEDERATED_TOKEN_FILE", Path, _WRITE_IDENTITY)
    if authority is None and has_variables("AZURE_AUTHORITY_HOST"):
        authority = read_variable("AZURE_AUTHORITY_HOST", _parse_authority, _WRITE_IDENTITY)
    return FederatedIdentity(tenant, client_id, token, authority or AUTHORITY)


def takes_identity(secret: Mapping[str, str]) -> bool:
    """Return True if the identity of this pod reads a source.

    Args:
        secret: Values of the storage Secret by key.

    Raises:
        Failure: InvalidSecret.
    """
    if not has_variables(*IDENTITY):
        return False
    account = secret.get("AZURE_STORAGE_ACCOUNT_NAME", "").strip()
    return isinstance(parse_settings(secret, account).credential, FederatedIdentity)
