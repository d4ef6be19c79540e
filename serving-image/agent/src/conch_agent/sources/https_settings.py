"""The settings of a web server in the storage Secret.

The credentials are bound to a host: who may write storageUri could otherwise have them sent to a server of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.secret_settings import (
    Endpoint,
    SettingKey,
    WrongFormError,
    format_value,
    parse_endpoint,
    parse_password,
    parse_values,
)
from conch_agent.sources.storage_secret import build_invalid_secret

AUTHORIZATION: Final = "HTTPS_AUTHORIZATION"
HOST: Final = "HTTPS_HOST"


@dataclass(frozen=True)
class HttpsSettings(NetworkSettings):
    """The settings of a web server.

    Attributes:
        authorization: The header Authorization; None: requests are anonymous.
        host: The server that gets it.
    """

    authorization: str | None = field(default=None, repr=False)
    host: Endpoint | None = None

    def find_credentials(self, uri: str) -> dict[str, str]:
        """Return the headers for the server of a URL alone; empty: it is another one, or has no TLS.

        Args:
            uri: The URL.
        """
        try:
            url = URL(uri)
        except ValueError:  # which a request reports
            return {}
        is_bound = self.host and _find_place(url) == _find_place(URL(self.host.url))
        return {"Authorization": self.authorization} if is_bound and self.authorization else {}


def _find_place(url: URL) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port in one form: names as DNS has them, IPv6 addresses shortened."""
    return url.scheme, url.raw_host, url.port


def _parse_host(text: str) -> Endpoint:
    endpoint = parse_endpoint(f"https://{text}", "")
    if endpoint.url.count("/") > 2:
        message = f"is {format_value(text)}, which is more than a host"
        raise WrongFormError(message)
    return endpoint


KEYS: Final[Mapping[str, SettingKey]] = {
    AUTHORIZATION: SettingKey(
        "authorization", parse_password, "Write the value of the header Authorization, such as Bearer and a token"
    ),
    HOST: SettingKey(
        "host", _parse_host, "Write the host of storageUri, such as models.example or models.example:8443"
    ),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str]) -> HttpsSettings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy.
    """
    settings = HttpsSettings(**parse_values(secret, KEYS))
    if settings.authorization and not settings.host:
        raise build_invalid_secret(HOST, f"is absent while {AUTHORIZATION} is set", KEYS[HOST].write)
    return settings


def describe_credentials(settings: HttpsSettings, uri: str) -> str:
    """Return the remedy for a denial, a sentence without its full stop.

    Args:
        settings: The settings.
        uri: The storageUri.
    """
    if settings.find_credentials(uri):
        return f"Correct {AUTHORIZATION} in the storage Secret, or its rights"
    if settings.authorization and settings.host:
        return (
            f"{AUTHORIZATION} in the storage Secret was not sent: it is for {settings.host.url}, by {HOST}. Correct one"
            " of them, or storageUri"
        )
    return f"Use a URL that may be read, or write {AUTHORIZATION} and {HOST} into the Secret of storage.secretRef"
