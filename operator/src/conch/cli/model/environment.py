"""Credentials and settings of a storage in the environment, by the names that the keys of a storage Secret have."""

from __future__ import annotations

import os
from pathlib import Path

from conch_agent.sources.oci_settings import LOGINS_KEY
from conch_contract.schemes import find_scheme


def read_environment(uri: str) -> dict[str, str]:
    """Return the values of a storage Secret: variables, and for a registry the logins of `docker login`.

    Args:
        uri: The storageUri.
    """
    scheme = find_scheme(uri)
    names = [key.name for key in scheme.secret_keys] if scheme else []
    values = {name: value for name in names if (value := os.environ.get(name))}
    logins = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    if LOGINS_KEY in names and logins.is_file():
        values[LOGINS_KEY] = logins.read_text()
    return values
