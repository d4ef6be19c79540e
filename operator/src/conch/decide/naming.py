"""Revisions are named by content: what changes pods changes the name, and nothing else does."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from conch.api import Predictor

# Kubernetes' own alphabet for generated names: no vowels, so no words (apimachinery util/rand).
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_LENGTH: Final = 10
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
# What of a predictor does not change its pods.
NOT_OF_PODS: Final = frozenset({"minReplicas", "maxReplicas", "autoscaling"})


def pod_fields(predictor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that change pods of a predictor without defaults, as `to_wire` returns it.

    Without defaults, because a field that a newer CRD brings, defaulted, must not rename the revisions
    of services that do not set it: an operator upgrade would restart every model.
    """
    return {key: value for key, value in predictor.items() if key not in NOT_OF_PODS}


def revision_name(service: str, predictor: Predictor, sources: Mapping[str, str] = _NONE) -> str:
    """Return `<service>-<hash>`, the name of the revision that serves this predictor.

    Args:
        service: Name of the track.
        predictor: The predictor.
        sources: Identities of the listings of watched sources whose content it was created for, by model; empty: it
            was created for a spec.
    """
    fields = pod_fields(predictor.to_wire()) | ({"sources": dict(sources)} if sources else {})
    content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(content.encode()).digest())
    letters = []
    for _ in range(_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return f"{service}-{''.join(letters)}"
