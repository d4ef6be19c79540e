"""Credentials and settings of a storage in the environment, by the names that the keys of a storage Secret have."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from conch.cli.model.docker import read_logins
from conch_agent.sources.https_settings import AUTHORIZATION, HOST
from conch_agent.sources.oci_settings import LOGINS_KEY
from conch_contract.schemes import find_scheme

# Words of the agent about the Secret of a pod, and those about what the commands read in its place.
_WORDS: Final = {
    "as .dockerconfigjson into the Secret of storage.secretRef (kubectl create secret docker-registry)": "into Docker's"
    " configuration (docker login)",
    "Create the Secret with kubectl create secret docker-registry": "Log in again (docker login)",
    ".dockerconfigjson in the storage Secret": "Docker's configuration",
    ".dockerconfigjson of the storage Secret": "Docker's configuration (docker login)",
    "in the storage Secret": "in the environment",
    "into the Secret of storage.secretRef": "into the environment",
    "in the environment of the agent's container": "in the environment",
}


def read_environment(uri: str) -> dict[str, str]:
    """Return the values of a storage Secret: variables, and for a registry the logins of `docker login`.

    Args:
        uri: The storageUri.

    Raises:
        CommandError: Docker's configuration cannot be read.
    """
    scheme = find_scheme(uri)
    names = [key.name for key in scheme.secret_keys] if scheme else []
    values = {name: value for name in names if (value := os.environ.get(name))}
    if values.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        values.setdefault("AWS_ALLOW_HTTP", "true")  # who runs the command has written the address
    if AUTHORIZATION in values:
        values.setdefault(HOST, urlsplit(uri).netloc)
    if LOGINS_KEY in names and (logins := read_logins(uri)):
        values[LOGINS_KEY] = logins
    return values


def name_environment(message: str) -> str:
    """Return a message of the agent with the words for what is in the environment.

    Args:
        message: The message.

    >>> name_environment("AWS_REGION in the storage Secret is empty.")
    'AWS_REGION in the environment is empty.'
    """
    for secret, environment in _WORDS.items():
        message = message.replace(secret, environment)
    return message
