"""The index of Python packages: its URL, the certificates to trust for it, and proxies, all of the storage Secret."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.secret_settings import parse_endpoint, parse_values
from conch_agent.sources.storage_secret import build_invalid_secret
from conch_contract.addresses import check_address
from conch_contract.scheme import SecretKey

INDEX: Final = SecretKey("PIP_INDEX_URL", "URL of an index of Python packages, as pip takes it")
_WRITE: Final = "Write one of http or https, such as https://host/simple"
_NETWORK: Final = tuple(SecretKey(name, "") for name in NETWORK_KEYS)
INDEX_KEYS: Final = (INDEX, *_NETWORK)


@dataclass(frozen=True)
class Index:
    """An index, and how it is reached.

    Attributes:
        url: Its URL; empty: that of pip.
        network: Certificates to trust for it beside those of the image, and proxies.
    """

    url: str = ""
    network: NetworkSettings = field(default_factory=NetworkSettings)

    @property
    def place(self) -> str:
        """The index in messages."""
        return f"the index of {INDEX.name}" if self.url else "pip's index"

    def write_variables(self, folder: Path) -> dict[str, str]:
        """Return the variables of pip's environment. An argument would be in the list of processes, with its password.

        Args:
            folder: The folder for the file of certificates, of which pip takes one.

        Raises:
            Failure: Unreachable for an invalid proxy in the container's environment.
        """
        proxies = self.network.find_proxies()
        variables = {**proxies.build_variables(), **({INDEX.name: self.url} if self.url else {})}
        if self.network.authorities:
            bundle = folder / "ca.crt"
            known = ssl.create_default_context().get_ca_certs(binary_form=True)
            bundle.write_text("".join(map(ssl.DER_cert_to_PEM_cert, known)) + self.network.authorities)
            variables["PIP_CERT"] = str(bundle)
        return variables


def parse_index(secret: Mapping[str, str]) -> Index:
    """Return the index of a storage Secret.

    Args:
        secret: Values of INDEX_KEYS by key.

    Raises:
        Failure: InvalidSecret.
    """
    url = secret.get(INDEX.name, "")
    if url:
        _check_url(url)
    return Index(url, NetworkSettings(**parse_values(secret, NETWORK_KEYS)))


def _check_url(url: str) -> None:
    """Refuse what is no URL, and addresses that no source may have. A message has no part that may be a password."""
    try:
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        endpoint = parse_endpoint(place if re.fullmatch(r"\S+", url) else "", "")
    except ValueError:
        raise build_invalid_secret(INDEX.name, "is no URL", _WRITE) from None
    try:
        check_address(endpoint.host)
    except ValueError as error:
        raise build_invalid_secret(INDEX.name, f"is refused: {error}", _WRITE) from None
