"""The metadata that every child carries: whose it is, and how it is found."""

from typing import Any

from conch.api import InferenceService
from conch.api.kinds import Kind
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch_contract import names

Manifest = dict[str, Any]


def child(
    service: InferenceService,
    kind: Kind,
    name: str,
    revision: str | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """Return the head of a child's manifest: the garbage collector's reference and the labels."""
    meta: Manifest = {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": labels(service.metadata.name, revision),
        "ownerReferences": [service.owner_reference()],
    }
    if annotations:
        meta["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}


def labels(service: str, revision: str | None = None) -> dict[str, str]:
    """Return the labels of a child, or of a pod."""
    return {
        LABEL_NAME: "triton",
        LABEL_INSTANCE: service,
        LABEL_MANAGED_BY: "conch",
        **selector(service, revision),
    }


def selector(service: str, revision: str | None = None) -> dict[str, str]:
    """Return what selects the pods of a service, or of one of its revisions."""
    chosen = {names.LABEL_SERVICE: service}
    if revision:
        chosen[names.LABEL_REVISION] = revision
    return chosen
