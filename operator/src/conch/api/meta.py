"""Metadata of children: owner reference, labels and selectors."""

from typing import Any, Final

from conch.api.kinds import Kind
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch.api.service import InferenceService
from conch_contract import names

Manifest = dict[str, Any]

SERVING_NAME: Final = "triton"  # the LABEL_NAME of serving pods; the pods of revision Jobs have another


def child(
    service: InferenceService,
    kind: Kind,
    name: str,
    revision: str | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """Return apiVersion, kind and metadata of a child, with owner reference and labels."""
    meta: Manifest = {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": labels(service, revision),
        "ownerReferences": [service.owner_reference()],
    }
    if annotations:
        meta["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}


def labels(service: InferenceService, revision: str | None = None) -> dict[str, str]:
    """Return the labels of a child or of a pod."""
    common = {LABEL_NAME: SERVING_NAME, LABEL_INSTANCE: service.metadata.name, LABEL_MANAGED_BY: "conch"}
    variant = {names.LABEL_VARIANT: service.variant} if service.variant else {}
    return {**common, **selector(service, revision), **variant}


def pod_labels(service: InferenceService, workload: str) -> dict[str, str]:
    """Return the labels of the serving pods of a workload, which begin with the revision of its name."""
    return {**labels(service, workload), **workload_selector(service, workload)}


def workload_selector(service: InferenceService, workload: str) -> dict[str, str]:
    """Return the selector of the pods of a workload, whichever revision they serve."""
    return {names.LABEL_SERVICE: service.metadata.name, names.LABEL_WORKLOAD: workload}


def selector(service: InferenceService, revision: str | None = None) -> dict[str, str]:
    """Return the selector of the serving pods of a service, variants included, or of one revision."""
    if revision:
        return {names.LABEL_SERVICE: service.metadata.name, names.LABEL_REVISION: revision}
    return {names.LABEL_SERVICE: service.metadata.name, LABEL_NAME: SERVING_NAME}
