"""The plan: an ordered list of writes, empty when the world is as it should be.

Order is a rule: what is referred to is written before what refers to it, and goes after it.
Steps are waited for one after the other; the actions of one step do not depend on each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    SCALERS,
    SERVICE,
    Kind,
    Ref,
    ref_of,
)
from conch.api.names import ANNOTATION_APPLIED_HASH
from conch.decide import Decisions
from conch.observe import World
from conch.observe.compare import fingerprint, says
from conch.observe.fields import annotations_of
from conch.observe.identity import revision_of

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Apply:
    """Write an object. `new`: none is known, so look first whether a stranger has the name."""

    ref: Ref
    manifest: Manifest
    new: bool


@dataclass(frozen=True)
class Release:
    """Before an apply that no longer says `replicas`: let another manager own the present number.

    A field that its only owner drops falls back to its default: one replica. The documented way is to
    hand it over (kubernetes.io, Server-Side Apply, "Transferring ownership").
    """

    ref: Ref
    manifest: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete the object of this uid."""

    ref: Ref
    uid: str


Action = Apply | Release | Delete
Step = tuple[Action, ...]


@dataclass(frozen=True)
class Refusal:
    """A write that cannot be, and the sentence that the user reads. Trying again alone will not mend it."""

    ref: Ref
    reason: str
    message: str


# What a write waits for: the kinds of a row only refer to kinds above it. Deletion goes the other way.
_ROWS: Final[tuple[frozenset[Kind], ...]] = (
    frozenset({CONTROLLER_REVISION, CONFIG_MAP}),
    frozenset({DEPLOYMENT, DISRUPTION_BUDGET, SERVICE}),
    frozenset({*SCALERS, JOB, HTTP_ROUTE}),
)


def plan(world: World, decisions: Decisions, desired: Sequence[Manifest]) -> tuple[list[Step], list[Refusal]]:
    """Return the writes that make the world as desired, and what stands in the way."""
    refusals: list[Refusal] = []
    writes: list[Apply] = []
    # A service that was deleted and made again: the garbage collector is about to take the old one's children.
    predecessor = f"{INFERENCE_SERVICE.name}/{world.key.name}"
    for manifest in desired:
        ref = ref_of(manifest)
        if ref in world.strangers:
            if world.strangers[ref] != predecessor:
                refusals.append(taken(ref, world.strangers[ref]))
        elif (write := _apply(world, ref, manifest)) is not None:
            writes.append(write)
    doomed = _doomed(world, decisions, {ref_of(manifest) for manifest in desired})
    # KEDA refuses a ScaledObject where an autoscaler has its Deployment already; pods stay as they are in between.
    replaced = {ref for write in writes if write.ref.kind in SCALERS for ref in _others(write.ref)}
    released = {release.ref: release for write in writes if (release := _release(world, write)) is not None}
    steps: list[Step] = [tuple(released.values())]
    steps += [tuple(Delete(write.ref, uid) for write in writes if (uid := _unreadable(world, write.ref)))]
    steps += [tuple(delete for delete in doomed if delete.ref in replaced)]
    doomed = [delete for delete in doomed if delete.ref not in replaced]
    steps += [tuple(write for write in writes if write.ref.kind in row) for row in _ROWS]
    steps += [tuple(delete for delete in doomed if delete.ref.kind in row) for row in reversed(_ROWS)]
    return [step for step in steps if step], refusals


def taken(ref: Ref, owner: str) -> Refusal:
    """Say that an object of a name that we need belongs to somebody else."""
    return Refusal(
        ref,
        "NameTaken",
        f"{ref} exists and belongs to {owner}; Conch leaves it alone. Rename the InferenceService,"
        f" or delete the {ref.kind.name}.",
    )


def _apply(world: World, ref: Ref, manifest: Manifest) -> Apply | None:
    """The write that makes one object as desired; None if it is so already."""
    stamp = fingerprint(manifest)
    seen = world.children.get(ref)
    if seen is not None and annotations_of(seen).get(ANNOTATION_APPLIED_HASH) == stamp and says(seen, manifest):
        return None
    meta = manifest["metadata"]
    stamped = {**(meta.get("annotations") or {}), ANNOTATION_APPLIED_HASH: stamp}
    applied = {**manifest, "metadata": {**meta, "annotations": stamped}}
    return Apply(ref, applied, new=seen is None or bool(_unreadable(world, ref)))


def _unreadable(world: World, ref: Ref) -> str:
    """The uid of a record that cannot be read: the API server takes no change of its data, so it is replaced."""
    seen = world.children.get(ref)
    if ref.kind != CONTROLLER_REVISION or seen is None or ref.name in world.revisions:
        return ""
    return str(seen["metadata"]["uid"])


def _release(world: World, write: Apply) -> Release | None:
    """Hand a Deployment's replicas over when an autoscaler shall own them from now on."""
    seen = world.deployment(write.ref.name)
    if seen is None or not _hands_over(world, write):
        return None
    meta = {key: write.manifest["metadata"][key] for key in ("name", "namespace")}
    meta["uid"] = seen["metadata"]["uid"]  # a Deployment that was deleted meanwhile is not created from this
    spec = {"replicas": max(world.replicas(write.ref.name), 1)}  # an HPA leaves a Deployment of none alone
    head = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name}
    return Release(Ref(DEPLOYMENT, write.ref.name), {**head, "metadata": meta, "spec": spec})


def _hands_over(world: World, write: Apply) -> bool:
    """Whether replicas change hands by a write, or an HPA takes over from KEDA, which left none."""
    if write.ref.kind == AUTOSCALER:
        return write.new and not world.replicas(write.ref.name)
    if write.ref.kind != DEPLOYMENT or "replicas" in write.manifest["spec"]:
        return False
    return not any(Ref(kind, write.ref.name) in world.children for kind in SCALERS)


def _others(ref: Ref) -> set[Ref]:
    """What else may drive the pods that this scaler drives."""
    return {Ref(kind, ref.name) for kind in SCALERS if kind != ref.kind}


def _doomed(world: World, decisions: Decisions, desired: set[Ref]) -> list[Delete]:
    """The children that should be no more: of revisions that live no longer, or of features turned off."""
    doomed = []
    for ref, child in world.children.items():
        revision = revision_of(child)
        if ref in desired or "deletionTimestamp" in child["metadata"]:
            continue
        if ref.kind == CONTROLLER_REVISION:
            keep = revision not in decisions.forgotten
        else:
            # Of a revision without a record nothing is desired, and what it has stays.
            keep = revision in decisions.living and (ref.kind not in SCALERS or revision not in world.revisions)
        if not keep:
            doomed.append(Delete(ref, child["metadata"]["uid"]))
    return doomed
