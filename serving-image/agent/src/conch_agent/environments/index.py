"""The index of Python packages: its URL, the certificates to trust for it, and proxies, all of the storage Secret."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings, read_variable
from conch_agent.sources.proxies import PROXY_KEYS
from conch_agent.sources.secret_settings import parse_values
from conch_agent.sources.storage_secret import build_invalid_secret
from conch_contract.schemes import SecretKey

INDEX: Final = SecretKey("PIP_INDEX_URL", "URL of an index of Python packages, as pip takes it")
_URL: Final = re.compile(r"https?://[^\s/]\S*")
_NETWORK: Final = tuple(SecretKey(name, "") for name in NETWORK_KEYS)
INDEX_KEYS: Final = (INDEX, *_NETWORK)


@dataclass(frozen=True)
class Index:
    """An index, and how it is reached.

    Attributes:
        url: Its URL; empty: that of pip.
        proxies: Variables of pip's environment.
        authorities: PEM certificates to trust for it beside those of the image; None: there are none.
    """

    url: str = ""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorities: str | None = None

    @property
    def place(self) -> str:
        """The index in messages."""
        return f"the index of {INDEX.name}" if self.url else "pip's index"

    def write_variables(self, folder: Path) -> dict[str, str]:
        """Return the variables of pip's environment. An argument would be in the list of processes, with its password.

        Args:
            folder: The folder for the file of certificates, of which pip takes one.
        """
        variables = {**self.proxies, **({INDEX.name: self.url} if self.url else {})}
        if self.authorities:
            bundle = folder / "ca.crt"
            known = ssl.create_default_context().get_ca_certs(binary_form=True)
            bundle.write_text("".join(map(ssl.DER_cert_to_PEM_cert, known)) + self.authorities)
            variables["PIP_CERT"] = str(bundle)
        return variables


def parse_index(secret: Mapping[str, str]) -> Index:
    """Return the index of a storage Secret.

    Args:
        secret: Values of INDEX_KEYS by key.

    Raises:
        Failure: InvalidSecret; or Unreachable for an invalid proxy in the container's environment.
    """
    url = secret.get(INDEX.name, "")
    if url and not _URL.fullmatch(url):
        raise build_invalid_secret(INDEX.name, "is no URL", "Write one of http or https, such as https://host/simple")
    settings = NetworkSettings(**parse_values(secret, NETWORK_KEYS))
    settings.find_proxies()
    proxies = {name: value for name in PROXY_KEYS if (value := secret.get(name) or read_variable(name))}
    return Index(url, proxies, settings.authorities)
