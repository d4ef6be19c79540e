"""Revisions are named by content: what changes pods changes the name, and nothing else does."""

import hashlib
import json
from typing import Any, Final

from conch.api import Predictor

# Kubernetes' own alphabet for generated names: no vowels, so no words (apimachinery util/rand).
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_LENGTH: Final = 10
# What of a predictor does not change its pods.
NOT_OF_PODS: Final = frozenset({"minReplicas", "maxReplicas", "autoscaling"})


def pod_fields(predictor: Predictor) -> dict[str, Any]:
    """Return the fields of a predictor that change pods, without defaults.

    Without defaults, because a field that a newer CRD brings, defaulted, must not rename the revisions
    of services that do not set it: an operator upgrade would restart every model.
    """
    return {key: value for key, value in predictor.to_wire().items() if key not in NOT_OF_PODS}


def revision_name(service: str, predictor: Predictor) -> str:
    """Return `<service>-<hash>`, the name of the revision that serves this predictor."""
    content = json.dumps(pod_fields(predictor), sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(content.encode()).digest())
    letters = []
    for _ in range(_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return f"{service}-{''.join(letters)}"
