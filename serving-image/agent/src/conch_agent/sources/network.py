"""What the sources of all schemes have in the storage Secret: certificates to trust, and proxies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.proxies import PROXY_KEYS, Direct, Proxies, Proxy
from conch_agent.sources.secret_settings import WRITE_CERTIFICATES, SettingKey, WrongFormError, parse_authorities

NETWORK_KEYS: Final[Mapping[str, SettingKey]] = {
    **PROXY_KEYS,
    "ca.crt": SettingKey("authorities", parse_authorities, WRITE_CERTIFICATES),
}


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The settings of NETWORK_KEYS. None: the Secret has no such key.

    Attributes:
        authorities: PEM certificates, without other text, to trust beside those of the image.
        https_proxy: The proxy for URLs with https://.
        http_proxy: That for URLs with http://.
        no_proxy: Servers that are reached without.
    """

    authorities: str | None = None
    https_proxy: Proxy | None = None
    http_proxy: Proxy | None = None
    no_proxy: tuple[Direct, ...] | None = None

    def find_proxies(self) -> Proxies:
        """Return the proxies. A key that the Secret does not have is read from the container's environment.

        Raises:
            Failure: Unreachable: a variable of the environment is invalid.
        """
        direct = self.no_proxy if self.no_proxy is not None else _parse_variable("NO_PROXY") or ()
        if Direct("*") in direct:  # so that the Secret turns off what a platform adds, such as a proxy for SOCKS
            return Proxies(direct=direct)
        return Proxies(
            self.https_proxy or _parse_variable("HTTPS_PROXY"),
            self.http_proxy or _parse_variable("HTTP_PROXY"),
            direct,
        )


DIRECT: Final = NetworkSettings(no_proxy=(Direct("*"),))
"""The settings for a server on the node, which is reached without a proxy."""


def _parse_variable(name: str) -> Any:
    """Return the setting of a variable of the container's environment; None: there is none. Small letters are usual."""
    text, key = (os.environ.get(name) or os.environ.get(name.lower(), "")).strip(), PROXY_KEYS[name]
    try:
        return key.parse(text) if text else None
    except WrongFormError as error:
        message = f"{name} in the environment of the agent's container {error}. {error.write or key.write}."
        raise Failure(Reason.UNREACHABLE, message) from None
