"""The settings of a hub in the storage Secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.secret_settings import (
    WRITE_SWITCH,
    Endpoint,
    SettingKey,
    check_plain_http,
    parse_endpoint,
    parse_switch,
    parse_token,
    parse_values,
)

_HUGGING_FACE: Final = Endpoint("https://huggingface.co", "huggingface.co", 443)


@dataclass(frozen=True)
class HfSettings(NetworkSettings):
    """The settings of a hub.

    Attributes:
        token: The access token; None: requests are anonymous.
        endpoint: The hub's address.
        allow_http: True to allow an endpoint without TLS.
    """

    token: str | None = None
    endpoint: Endpoint = _HUGGING_FACE
    allow_http: bool = False


def _parse_endpoint(text: str) -> Endpoint:
    return parse_endpoint(text, "HF_ALLOW_HTTP")


KEYS: Final[Mapping[str, SettingKey]] = {
    "HF_TOKEN": SettingKey("token", parse_token, "Write the access token (hf_...) on one line"),
    "HF_ENDPOINT": SettingKey("endpoint", _parse_endpoint, "Write a URL such as https://hub.example"),
    "HF_ALLOW_HTTP": SettingKey("allow_http", parse_switch, WRITE_SWITCH),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str]) -> HfSettings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy; InsecureEndpoint for an
            http:// endpoint that is not allowed.
    """
    settings = HfSettings(**parse_values(secret, KEYS))
    check_plain_http(settings.endpoint, "HF_ENDPOINT", "HF_ALLOW_HTTP", allowed=settings.allow_http)
    return settings
