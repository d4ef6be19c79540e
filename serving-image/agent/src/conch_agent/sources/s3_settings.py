"""The settings of an S3 store in the storage Secret. All values are checked before the client's library has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.pod_identity import has_variables
from conch_agent.sources.secret_settings import (
    WRITE_ENDPOINT,
    WRITE_SWITCH,
    Endpoint,
    SettingKey,
    WrongFormError,
    check_plain_http,
    format_value,
    parse_endpoint,
    parse_password,
    parse_switch,
    parse_token,
    parse_values,
)
from conch_agent.sources.storage_secret import build_invalid_secret

ROLE: Final = "AWS_ROLE_ARN"  # variables that EKS sets
TOKEN_FILE: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105  the name of a variable
EKS_AGENT: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"  # those of EKS Pod Identity
EKS_TOKEN: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105  the name of a variable
_AMAZON: Final = re.compile(r"(.+\.)?amazonaws\.(com|com\.cn|eu)")  # also of private endpoints
# Domains by the beginnings of the regions of a partition (https://docs.aws.amazon.com/general/latest/gr/s3.html).
_DOMAINS: Final = {"cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu"}


@dataclass(frozen=True)
class S3Settings(NetworkSettings):
    """The settings of an S3 store. None: the Secret has no such key.

    Attributes:
        access_key_id: Id of the access key.
        secret_access_key: The secret access key.
        session_token: Token of temporary credentials.
        region: The region.
        endpoint: The store's address.
        token_service: The address of the token service, where it is not Amazon's.
        allow_http: True to allow an endpoint without TLS.
        virtual_hosted: True to put the bucket into the host name.
        skip_signature: True to send no credentials.
        request_payer: True to pay for requests.
        unknown: The Secret's keys that set nothing here.
    """

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None
    endpoint: Endpoint | None = None
    token_service: Endpoint | None = None
    allow_http: bool = False
    virtual_hosted: bool = False
    skip_signature: bool = False
    request_payer: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def takes_role(self) -> bool:
        """True if the credentials may be those of the pod: of a store for which they are, and without others."""
        is_of_role = self.endpoint is None or self.token_service is not None or _is_amazon(self.endpoint)
        return self.access_key_id is None and not self.skip_signature and is_of_role

    @property
    def is_signed(self) -> bool:
        """True if requests are signed with credentials of the Secret. Without any the store is public."""
        return self.access_key_id is not None and not self.skip_signature


def parse_region(text: str) -> str:
    """Return a region, which is a part of host names.

    Args:
        text: Its name.

    Raises:
        WrongFormError: It is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        message = f"is {format_value(text)}, which is not a region"
        raise WrongFormError(message)
    return text


def build_host(service: str, region: str) -> str:
    """Return the host name of a service of Amazon in a region, in the domain of the region's partition.

    Args:
        service: The service.
        region: The region.

    >>> build_host("sts", "us-gov-west-1"), build_host("s3", "cn-north-1")
    ('sts.us-gov-west-1.amazonaws.com', 's3.cn-north-1.amazonaws.com.cn')
    """
    domain = next((domain for start, domain in _DOMAINS.items() if region.startswith(start)), "amazonaws.com")
    return f"{service}.{region}.{domain}"


def _is_amazon(endpoint: Endpoint) -> bool:
    return endpoint.is_secure and _AMAZON.fullmatch(endpoint.host) is not None


def _parse_endpoint(text: str) -> Endpoint:
    return parse_endpoint(text, "AWS_ALLOW_HTTP")


def _parse_payer(text: str) -> bool:
    return text.lower() == "requester" or parse_switch(text)


KEYS: Final[Mapping[str, SettingKey]] = {
    "AWS_ACCESS_KEY_ID": SettingKey("access_key_id", parse_token, "Write the access key's id as the store shows it"),
    "AWS_SECRET_ACCESS_KEY": SettingKey(
        "secret_access_key", parse_password, "Write the secret key as the store shows it"
    ),
    "AWS_SESSION_TOKEN": SettingKey("session_token", parse_token, "Write the token on one line"),
    "AWS_DEFAULT_REGION": SettingKey("region", parse_region, "Write a region such as us-east-1"),
    "AWS_REGION": SettingKey(
        "region", parse_region, "Write a region such as us-east-1"
    ),  # after the default, which it overrides
    "AWS_ENDPOINT_URL": SettingKey("endpoint", _parse_endpoint, WRITE_ENDPOINT),
    "AWS_ENDPOINT_URL_STS": SettingKey("token_service", _parse_endpoint, WRITE_ENDPOINT),
    "AWS_ALLOW_HTTP": SettingKey("allow_http", parse_switch, WRITE_SWITCH),
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": SettingKey("virtual_hosted", parse_switch, WRITE_SWITCH),
    "AWS_SKIP_SIGNATURE": SettingKey("skip_signature", parse_switch, WRITE_SWITCH),
    "AWS_REQUEST_PAYER": SettingKey("request_payer", _parse_payer, WRITE_SWITCH),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str]) -> S3Settings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy; InsecureEndpoint for an
            http:// endpoint that is not allowed.
    """
    values = parse_values(secret, KEYS)
    settings = S3Settings(**values, unknown=tuple(sorted(set(secret) - set(KEYS))))
    _check_credentials(settings)
    for name, endpoint in (("AWS_ENDPOINT_URL", settings.endpoint), ("AWS_ENDPOINT_URL_STS", settings.token_service)):
        check_plain_http(endpoint, name, "AWS_ALLOW_HTTP", allowed=settings.allow_http)
    return settings


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


def takes_identity(secret: Mapping[str, str]) -> bool:
    """Return True if the role of this pod reads a source.

    Args:
        secret: Values of the storage Secret by key.

    Raises:
        Failure: InvalidSecret.
    """
    return has_role() and parse_settings(secret).takes_role


def has_role() -> bool:
    """Return True if the environment names a role, or the agent of EKS that has its credentials."""
    return has_variables(ROLE, TOKEN_FILE) or has_variables(EKS_AGENT, EKS_TOKEN)
