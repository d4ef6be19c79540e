"""Service, variant, revision and owner of a child.

A name is immutable, a label is not: if they differ, the name counts.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from conch.api.child_kinds import SHARED
from conch.api.kinds import INFERENCE_SERVICE, POD
from conch.api.names import ANNOTATION_APPLIED_HASH, LABEL_MANAGED_BY
from conch.observe.fields import annotations_of, labels_of
from conch_contract import names
from conch_contract.revision_jobs import REVISION_JOBS

# <track>-<hash>, as decide/naming.py makes them, and its Jobs.
_JOBS: Final = "|".join(job.format_name("") for job in REVISION_JOBS)
_REVISION: Final = re.compile(rf"(?P<track>.+)-[bcdfghjklmnpqrstvwxz2456789]{{10}}(?P<job>{_JOBS})?")

_SHARED: Final = frozenset(kind.name for kind in SHARED)


def revision_of(body: Mapping[str, Any]) -> str:
    """Return the revision of a child; empty: it has none, such as the root Service and the route.

    >>> revision_of({"metadata": {"name": "magika-bcdfghjklm-warmup"}}), revision_of({"metadata": {"name": "magika"}})
    ('magika-bcdfghjklm', '')
    """
    name = str(body["metadata"].get("name", ""))
    found = _REVISION.fullmatch(name)
    if found is None:
        return str(labels_of(body).get(names.LABEL_REVISION, ""))
    return name.removesuffix(found["job"] or "")


def variant_of(body: Mapping[str, Any]) -> str:
    """Return the variant of a child or of a pod; empty: it belongs to the predictor, or to all tracks.

    >>> labels = {"conch.dev/service": "magika"}
    >>> variant_of({"kind": "Service", "metadata": {"name": "magika-beta", "labels": labels}})
    'beta'
    """
    if body.get("kind") in _SHARED:
        return ""
    labels, name = labels_of(body), str(body["metadata"].get("name", ""))
    variant, service = str(labels.get(names.LABEL_VARIANT, "")), labels.get(names.LABEL_SERVICE, "")
    track = f"{service}-{variant}" if variant else service
    found = _REVISION.fullmatch(name)
    if body.get("kind") == POD.name or name == track or (found is not None and found["track"] == track):
        return variant
    owner = found["track"] if found is not None else name
    return owner.removeprefix(f"{service}-") if owner.startswith(f"{service}-") else ""


def controller_uid(body: Mapping[str, Any]) -> str | None:
    """Return the uid of an object's controller, if it has one."""
    for owner in body["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def controlling_service(body: Mapping[str, Any]) -> str | None:
    """Return the name of the service that controls an object, if one does. A label may have another name."""
    for owner in body["metadata"].get("ownerReferences") or ():
        kind = owner.get("apiVersion"), owner.get("kind")
        if owner.get("controller") and kind == (INFERENCE_SERVICE.api_version, INFERENCE_SERVICE.name):
            return str(owner["name"])
    return None


def is_orphan(body: Mapping[str, Any], service: str) -> bool:
    """Whether an object is a child that Conch wrote and that has no controller any more.

    Children have no controller after `kubectl delete --cascade=orphan`, and after a restore from a backup.
    """
    labels = labels_of(body)
    return (
        controller_uid(body) is None
        and labels.get(names.LABEL_SERVICE) == service
        and labels.get(LABEL_MANAGED_BY) == "conch"
        and ANNOTATION_APPLIED_HASH in annotations_of(body)
    )


def owner_words(body: Mapping[str, Any]) -> str:
    """Return the owner of an object for a message, such as Deployment/web."""
    for owner in body["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return f"{owner['kind']}/{owner['name']}"
    return "no controller"
