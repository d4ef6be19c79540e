"""The sources of model files: a module for each scheme of the contract, with the scheme's name.

The module of a scheme has the function `open_source`, which returns the source of a `Location`, and `KEYS`, the keys of
the Secret, if the scheme takes one. It is imported at its first use: a pod uses one, and some import large libraries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Final
from urllib.parse import urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources.base import Location, Source
from conch_agent.sources.storage_secret import read_secret
from conch_contract.schemes import SCHEMES, find_scheme
from conch_contract.sentences import join_words

_WITH_IDENTITY: Final = frozenset({"az", "gs", "s3"})  # schemes that a pod may read as itself
_BEGINNINGS: Final = join_words((f"{name}://" for name in SCHEMES), "or")


def open_source(uri: str, settings: Settings, secret_name: str = "") -> Source:
    """Return the source of a storageUri.

    Args:
        uri: The storageUri.
        settings: Paths of the container.
        secret_name: Name of its Secret among several; empty: the only one.

    Raises:
        Failure: Unsupported for a URI without a scheme of the contract; SecretMissing or InvalidSecret; and the
            failures of the scheme's module.
    """
    try:
        urlsplit(uri)
    except ValueError as error:
        raise Failure(Reason.UNSUPPORTED, f"{uri} is no URI ({error}): use {_BEGINNINGS}.") from None
    scheme = find_scheme(uri)
    if scheme is None:
        raise Failure(Reason.UNSUPPORTED, f"{uri} has no known scheme: use {_BEGINNINGS}.")
    secret = read_values(uri, settings, secret_name)
    opened: Source = import_module(f"{__name__}.{scheme.name}").open_source(Location(uri, secret, settings.pvc))
    return opened


def build_key(uri: str, settings: Settings, secret_name: str = "") -> str:
    """Return the key of a source: a hash of its URI, and of the store's address where the Secret has it.

    Args:
        uri: The storageUri.
        settings: Paths of the container.
        secret_name: As in `open_source`.

    Raises:
        Failure: SecretMissing or InvalidSecret.
    """
    secret, scheme = read_values(uri, settings, secret_name), find_scheme(uri)
    keys = scheme.secret_keys if scheme else ()
    addresses = [secret.get(key.name, "").rstrip("/") for key in keys if key.is_address]
    return hashlib.sha256(json.dumps([uri, *addresses]).encode()).hexdigest()


def read_values(uri: str, settings: Settings, secret_name: str = "") -> dict[str, str]:
    """Return the values of the Secret of a source; empty if its scheme takes none.

    Args:
        uri: The storageUri.
        settings: Paths of the container.
        secret_name: As in `open_source`.

    Raises:
        Failure: SecretMissing or InvalidSecret.
    """
    scheme = find_scheme(uri)
    keys = scheme.secret_keys if scheme else ()
    return read_secret(settings.find_secret(secret_name), keys) if keys else {}


def takes_identity(uri: str, secret: Mapping[str, str]) -> bool:
    """Return True if the identity of this pod reads a source, and no credentials of a Secret.

    Args:
        uri: The storageUri.
        secret: Values of the storage Secret by key.

    Raises:
        Failure: InvalidSecret.
    """
    scheme = find_scheme(uri)
    if scheme is None or scheme.name not in _WITH_IDENTITY:
        return False
    settings = import_module(f"{__name__}.{scheme.name}_settings")
    return bool(settings.takes_identity(secret))


__all__ = ["Source", "build_key", "open_source", "read_values", "takes_identity"]
