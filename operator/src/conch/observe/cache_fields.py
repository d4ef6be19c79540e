"""The fields of objects that the cache keeps: those that the pure packages read.

No decision can depend on other fields. Add a field here when a package reads it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from conch.api.child_kinds import CHILD_KINDS, ChildKind
from conch.api.kinds import (
    ENDPOINT_SLICE,
    INFERENCE_SERVICE,
    POD,
    REPLICA_SET,
    Kind,
    kind_of,
)
from conch.api.names import (
    ANNOTATION_APPLIED_HASH,
    ANNOTATION_ASSIGNED,
    ANNOTATION_ASSIGNED_AT,
    ANNOTATION_SERVES,
    LABEL_MANAGED_BY,
    LABEL_SERVICE_NAME,
)
from conch.observe.fields import mapping, mappings, text
from conch_contract import names
from conch_contract.revision_jobs import REVISION_JOBS

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
_IDENTITY = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp")
# Labels and annotations of objects of which only the identity is kept.
_IDENTITY_LABELS = (
    LABEL_MANAGED_BY,
    LABEL_SERVICE_NAME,
    names.LABEL_REVISION,
    names.LABEL_SERVICE,
    names.LABEL_VARIANT,
    names.LABEL_WORKLOAD,
    *(job.label for job in REVISION_JOBS),
)
_IDENTITY_ANNOTATIONS = (
    ANNOTATION_APPLIED_HASH,
    ANNOTATION_ASSIGNED,
    ANNOTATION_ASSIGNED_AT,
    ANNOTATION_SERVES,
)
_LONGEST = 128  # characters of values that Conch or Kubernetes writes; a longer value is foreign
_LONGEST_MESSAGE = 1024  # characters of the message of a failed pod
_NOISE = frozenset({"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"})
_CONTAINER_STATUS = ("name", "imageID", "ready", "restartCount", "state", "lastState")


# In the trimmed metadata of a service: the field manager that last wrote each track, by variant; "" is the predictor.
# Nothing else is kept of managedFields.
AUTHORS: Final = "authors"


def author_of(body: Mapping[str, Any], *variants: str) -> str:
    """Return the field manager that last wrote a part of a predictor; empty: managedFields has none.

    The time of an entry is that of its manager's last change of any field. When the predictor has just changed, the
    latest manager with a part of it is the one that changed it.

    Args:
        body: the InferenceService.
        variants: the names of variants; "", and no name, is spec.predictor. With several, the latest manager counts.
    """
    latest, author = "", ""
    for entry in body["metadata"].get("managedFields") or ():
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        predictors = (spec.get("f:variants") or {}) | {_item(""): spec}
        wrote = any("f:predictor" in (predictors.get(_item(variant)) or {}) for variant in variants or ("",))
        if wrote and (time := entry.get("time") or "") >= latest:
            latest, author = time, entry.get("manager") or ""
    return author


def _item(variant: str) -> str:
    """Return the name of an item of spec.variants in managedFields (structured-merge-diff, field paths)."""
    return f'k:{{"name":"{variant}"}}'


def _authors(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the field managers that last wrote the predictor, and each variant with what it takes from there."""
    variants = [text(variant.get("name")) for variant in mappings(mapping(body.get("spec")).get("variants"))]
    found = {variant: author_of(body, "", variant) for variant in ("", *variants)}
    return {variant: author for variant, author in found.items() if author}


def trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object that the pure packages read."""
    meta = {key: body["metadata"][key] for key in _META if key in body["metadata"]}
    if "annotations" in meta:
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k not in _NOISE}
    kind = kind_of(body)
    if kind == INFERENCE_SERVICE and (authors := _authors(body)):
        meta[AUTHORS] = authors
    kept = {key: value for key, value in body.items() if key not in {"metadata", "status"}} | {"metadata": meta}
    if kind in {POD, REPLICA_SET}:
        kept = keep_identity(body)
    if kind == ENDPOINT_SLICE:
        kept = keep_identity(body) | {"pods": _ready_endpoints(body)}
    read = _STATUS.get(kind)
    if read is not None:
        kept["status"] = read(body.get("status") or {})
    return kept


def keep_identity(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name and the owner of an object only, so that a large object needs little memory."""
    meta = mapping(body.get("metadata"))
    kept = {key: meta[key] for key in _IDENTITY if key in meta}
    for field, read in (("labels", _IDENTITY_LABELS), ("annotations", _IDENTITY_ANNOTATIONS)):
        values = mapping(meta.get(field))
        kept[field] = {name: values[name] for name in read if name in values and len(text(values[name])) <= _LONGEST}
    controllers = [owner for owner in mappings(meta.get("ownerReferences")) if owner.get("controller")]
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept | {"ownerReferences": controllers}}


def _ready_endpoints(body: Mapping[str, Any]) -> list[str]:
    """Return the uids of the pods that an EndpointSlice lists as ready; an absent condition means ready.

    Source: kubernetes.io, the EndpointSlice page ("Conditions"). A terminating pod is not ready there.
    """
    endpoints = (
        point for point in mappings(body.get("endpoints")) if mapping(point.get("conditions")).get("ready") is not False
    )
    uids = {text(mapping(point.get("targetRef")).get("uid")) for point in endpoints}
    return sorted(uid for uid in uids if 0 < len(uid) <= _LONGEST)


def _pod_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return phase, address, conditions without times, and the states of the pod and of its containers."""
    since = (c.get("lastTransitionTime", "") for c in mappings(status.get("conditions")) if c.get("type") == "Ready")
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {
        "phase": status.get("phase", ""),
        "reason": text(status.get("reason"))[:_LONGEST],
        "message": text(status.get("message"))[:_LONGEST_MESSAGE],
        "podIP": status.get("podIP", ""),
        **_conditions(status, "Ready", "PodScheduled"),
        "readySince": next(since, ""),  # or not ready; it changes with the condition's status only
        "containers": [{k: c[k] for k in _CONTAINER_STATUS if k in c} for c in containers],
    }


def _conditions(status: Mapping[str, Any], *types: str) -> dict[str, Any]:
    """Return conditions of some types without times, so that a new time starts no reconcile."""
    return {
        "conditions": [
            {key: condition.get(key, "") for key in ("type", "status", "reason", "message")}
            for condition in mappings(status.get("conditions"))
            if condition.get("type") in types
        ]
    }


def _child_status(child: ChildKind, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a child: its own, or those of each controller."""
    if not child.reporters:
        return _conditions(status, *child.conditions)
    entries = mappings(status.get(child.reporters))
    return {child.reporters: [{"parentRef": mapping(e.get("parentRef")), **_controller_conditions(e)} for e in entries]}


def _controller_conditions(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of one controller of an object of the Gateway API, with their generations."""
    fields = ("type", "status", "reason", "message", "observedGeneration")
    return {
        "controllerName": text(entry.get("controllerName")),
        "conditions": [{key: c.get(key, "") for key in fields} for c in mappings(entry.get("conditions"))],
    }


# A change of the status of any other kind starts no reconcile.
_STATUS: Final[Mapping[Kind, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    INFERENCE_SERVICE: dict,
    POD: _pod_status,
    **{child.kind: partial(_child_status, child) for child in CHILD_KINDS if child.conditions or child.reporters},
}
