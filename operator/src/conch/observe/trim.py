"""What of an object is worth keeping: the parts that some pure room reads.

Why a room of its own: what is trimmed here no decision can be made on. Add a field when a room reads it.
"""

from collections.abc import Mapping
from typing import Any

from conch.api.kinds import POD, kind_of

_META = (
    "name",
    "namespace",
    "uid",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
)
_NOISE = frozenset({"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"})
_CONTAINER_STATUS = ("name", "ready", "restartCount", "state", "lastState")


def trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pure rooms read of an object."""
    meta = {key: body["metadata"][key] for key in _META if key in body["metadata"]}
    if "annotations" in meta:
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k not in _NOISE}
    if kind_of(body) == POD:
        return {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": meta,
            "status": _pod_status(body.get("status") or {}),
        }
    return {**{k: v for k, v in body.items() if k != "metadata"}, "metadata": meta}


def _pod_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return phase, address, conditions without their clocks, and why containers wait or ended."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {
        "phase": status.get("phase", ""),
        "podIP": status.get("podIP", ""),
        "reason": status.get("reason", ""),
        "conditions": [
            {key: condition.get(key, "") for key in ("type", "status", "reason", "message")}
            for condition in status.get("conditions") or ()
        ],
        "containers": [{k: c[k] for k in _CONTAINER_STATUS if k in c} for c in containers],
    }
