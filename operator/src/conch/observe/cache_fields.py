"""What of an object is worth keeping: the parts that some pure room reads.

Why a room of its own: what is trimmed here no decision can be made on. Add a field when a room reads it.
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
from conch.api.names import ANNOTATION_APPLIED_HASH, LABEL_MANAGED_BY, LABEL_SERVICE_NAME
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
_STUB = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp")
# What is read of objects that are kept as stubs.
_STUB_LABELS = (
    LABEL_MANAGED_BY,
    LABEL_SERVICE_NAME,
    names.LABEL_REVISION,
    names.LABEL_SERVICE,
    names.LABEL_VARIANT,
    *(job.label for job in REVISION_JOBS),
)
_STUB_ANNOTATIONS = (ANNOTATION_APPLIED_HASH,)
_LONGEST = 128  # characters of what Conch or Kubernetes writes there; a longer text is another's
_LONGEST_MESSAGE = 1024  # characters of why a pod failed
_NOISE = frozenset({"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"})
_CONTAINER_STATUS = ("name", "imageID", "ready", "restartCount", "state", "lastState")


# In the trimmed metadata of a service: who last wrote what its predictor, under "", and each variant is made of; all
# that is kept of managedFields.
AUTHORS: Final = "authors"


def author_of(body: Mapping[str, Any], *variants: str) -> str:
    """Return the field manager that last wrote something of a predictor; empty if the API server does not tell.

    Which one: that of the variant that is named, or the latest of several; "", and no name at all, is spec.predictor.

    The time of an entry is that of its manager's last change, whichever of its fields it was: so at the moment
    when the predictor has changed, the latest of those who own a part of it is the one who changed it.
    """
    latest, author = "", ""
    for entry in body["metadata"].get("managedFields") or ():
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        said = (spec.get("f:variants") or {}) | {_item(""): spec}
        wrote = any("f:predictor" in (said.get(_item(variant)) or {}) for variant in variants or ("",))
        if wrote and (time := entry.get("time") or "") >= latest:
            latest, author = time, entry.get("manager") or ""
    return author


def _item(variant: str) -> str:
    """How managedFields names an item of spec.variants (structured-merge-diff, field paths)."""
    return f'k:{{"name":"{variant}"}}'


def _authors(body: Mapping[str, Any]) -> dict[str, str]:
    """Return who last wrote the predictor, and each variant: its own words, or those that it takes from there."""
    variants = [text(variant.get("name")) for variant in mappings(mapping(body.get("spec")).get("variants"))]
    found = {variant: author_of(body, "", variant) for variant in ("", *variants)}
    return {variant: author for variant, author in found.items() if author}


def trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pure packages read of an object."""
    meta = {key: body["metadata"][key] for key in _META if key in body["metadata"]}
    if "annotations" in meta:
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k not in _NOISE}
    kind = kind_of(body)
    if kind == INFERENCE_SERVICE and (authors := _authors(body)):
        meta[AUTHORS] = authors
    kept = {key: value for key, value in body.items() if key not in {"metadata", "status"}} | {"metadata": meta}
    if kind in {POD, REPLICA_SET}:
        kept = stub(body)
    if kind == ENDPOINT_SLICE:
        kept = stub(body) | {"pods": _ready_endpoints(body)}
    read = _STATUS.get(kind)
    if read is not None:
        kept["status"] = read(body.get("status") or {})
    return kept


def stub(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name and the owner of an object, and nothing else: little, however large the object."""
    meta = mapping(body.get("metadata"))
    kept = {key: meta[key] for key in _STUB if key in meta}
    for field, read in (("labels", _STUB_LABELS), ("annotations", _STUB_ANNOTATIONS)):
        there = mapping(meta.get(field))
        kept[field] = {name: there[name] for name in read if name in there and len(text(there[name])) <= _LONGEST}
    controllers = [owner for owner in mappings(meta.get("ownerReferences")) if owner.get("controller")]
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept | {"ownerReferences": controllers}}


def _ready_endpoints(body: Mapping[str, Any]) -> list[str]:
    """Return the uids of the pods that an EndpointSlice lists as ready; a condition that is absent means ready.

    Source: kubernetes.io, the EndpointSlice page ("Conditions"). A pod that ends is not ready there.
    """
    endpoints = (
        point for point in mappings(body.get("endpoints")) if mapping(point.get("conditions")).get("ready") is not False
    )
    uids = {text(mapping(point.get("targetRef")).get("uid")) for point in endpoints}
    return sorted(uid for uid in uids if 0 < len(uid) <= _LONGEST)


def _pod_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return phase, address, conditions without their clocks, and why containers, or the pod, wait or ended."""
    since = (c.get("lastTransitionTime", "") for c in mappings(status.get("conditions")) if c.get("type") == "Ready")
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {
        "phase": status.get("phase", ""),
        "reason": text(status.get("reason"))[:_LONGEST],
        "message": text(status.get("message"))[:_LONGEST_MESSAGE],
        "podIP": status.get("podIP", ""),
        **_conditions(status, "Ready", "PodScheduled"),
        "readySince": next(since, ""),  # or not ready; it moves with the condition's value alone
        "containers": [{k: c[k] for k in _CONTAINER_STATUS if k in c} for c in containers],
    }


def _conditions(status: Mapping[str, Any], *types: str) -> dict[str, Any]:
    """Return conditions of some types without their clocks: numbers that tick must wake nobody."""
    return {
        "conditions": [
            {key: condition.get(key, "") for key in ("type", "status", "reason", "message")}
            for condition in mappings(status.get("conditions"))
            if condition.get("type") in types
        ]
    }


def _child_status(child: ChildKind, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is read of the status of a child: conditions, its own or those of each controller."""
    if not child.reporters:
        return _conditions(status, *child.conditions)
    entries = mappings(status.get(child.reporters))
    return {child.reporters: [{"parentRef": mapping(e.get("parentRef")), **_controller_conditions(e)} for e in entries]}


def _controller_conditions(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one controller's conditions of an object of the Gateway API, with the generation that they are of."""
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
