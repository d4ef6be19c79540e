"""The places of this pod's models by the keys that other pods have for them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from conch_agent.peers.piece import PlaceKeys, derive_key
from conch_agent.reasons import Failure
from conch_agent.settings import Settings
from conch_agent.sources import build_key, read_values, takes_identity
from conch_contract.manifest import ModelSource
from conch_contract.schemes import find_scheme

_FRESH: Final = 5.0  # seconds, after which a Secret is read again: a pod may have thousands of models


class PlaceIndex:
    """Finds the models with a place, and reads the keys of places."""

    def __init__(self, settings: Settings) -> None:
        """Create the index.

        Args:
            settings: The agent's settings.
        """
        self._settings = settings
        self._keys: dict[tuple[str, str], PlaceKeys | None] = {}
        self._fresh_until = 0.0

    def read_keys(self, place: ModelSource) -> PlaceKeys | None:
        """Return what pods have in common for a place; None: this pod reads it as itself, which others may not do.

        Args:
            place: The model at the place.

        Raises:
            Failure: SecretMissing or InvalidSecret.
        """
        uri, secret = place.storage_uri, place.secret
        values = read_values(uri, self._settings, secret)
        if takes_identity(uri, values):
            return None
        return PlaceKeys(build_key(uri, self._settings, secret), derive_key(values))

    def find_models(self, models: Iterable[ModelSource], key: str) -> dict[bytes, list[str]]:
        """Return the names of the models that have a place, by the key of the pods with their Secret.

        Of other sources than object stores there is none: pods do not send each other what a claim has.

        Args:
            models: The models of this pod.
            key: The key of the place.
        """
        if time.monotonic() >= self._fresh_until:
            self._keys, self._fresh_until = {}, time.monotonic() + _FRESH
        found: dict[bytes, list[str]] = {}
        for model in models:
            for place in model.places:
                scheme = find_scheme(place.storage_uri)
                with suppress(Failure):
                    keys = self._find_keys(place) if scheme and scheme.is_object_store else None
                    if keys and keys.source == key:
                        found.setdefault(keys.secret, []).append(model.name)
        return found

    def _find_keys(self, place: ModelSource) -> PlaceKeys | None:
        name, known = (place.storage_uri, place.secret), self._keys
        if name not in known:
            known[name] = self.read_keys(place)
        return known[name]
