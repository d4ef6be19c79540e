"""The plan: an ordered list of writes, empty when the snapshot matches the desired objects.

An object is written before the objects that refer to it, and deleted after them. Steps follow each other; the actions
of one step do not depend on each other. An action that depends on a failed one is left out (`needs`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.child_kinds import CHILD_KINDS, child_kind
from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    SCALERS,
    SERVICE,
    Ref,
    kind_of,
    ref_of,
)
from conch.api.names import ANNOTATION_APPLIED_HASH, ANNOTATION_ASSIGNED, ANNOTATION_ASSIGNED_AT, ANNOTATION_SERVES
from conch.api.reasons import Reason
from conch.api.times import format_time
from conch.decide import Decisions
from conch.observe import Snapshot
from conch.observe.compare import Place, find_differences, fingerprint, is_subset
from conch.observe.fields import annotations_of, labels_of
from conch.observe.identity import controller_uid, revision_of
from conch.traffic.observed import observed_rules
from conch_contract import names

Manifest = Mapping[str, Any]
STAMP: Final[Place] = ("f:metadata", "f:annotations", f"f:{ANNOTATION_APPLIED_HASH}")
"""The hash of the manifest of an apply."""
Change = tuple[Place, str]
"""A field that an action writes, and the fingerprint of the value; the field () is whether the object exists."""

# The values of the field ().
PRESENT: Final = "present"
ABSENT: Final = "absent"


@dataclass(frozen=True)
class Apply:
    """Write an object. `new`: none is known, so it must not exist, or must be of the service."""

    ref: Ref
    manifest: Manifest
    new: bool
    needs: frozenset[Ref] = frozenset()  # objects whose write, release or deletion in this plan has to succeed first
    changes: tuple[Change, ...] = (((), PRESENT),)


@dataclass(frozen=True)
class Release:
    """Let another field manager own a Deployment's replicas, with a number.

    A field that its only owner drops falls back to its default: one replica. The documented way is to
    hand it over (kubernetes.io, Server-Side Apply, "Transferring ownership").
    """

    ref: Ref
    manifest: Manifest
    needs: frozenset[Ref] = frozenset()

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields that it writes."""
        return ((("f:spec", "f:replicas"), str(self.manifest["spec"]["replicas"])),)


@dataclass(frozen=True)
class Adopt:
    """Make the service the controller of an orphan that no apply writes."""

    ref: Ref
    uid: str
    owner: Manifest  # an item of metadata.ownerReferences
    needs: frozenset[Ref] = frozenset()

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields that it writes."""
        return ((("f:metadata", "f:ownerReferences"), fingerprint(self.owner)),)


@dataclass(frozen=True)
class Delete:
    """Delete the object of this uid."""

    ref: Ref
    uid: str
    needs: frozenset[Ref] = frozenset()

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields that it writes."""
        return (((), ABSENT),)


@dataclass(frozen=True)
class Assign:
    """Change the revision that a pod has to serve, or record that it serves it.

    In between it has no label of a revision, so that no Service of one selects it. A pod that changes in place keeps
    its label, and the Services of all revisions of its workload select it.
    """

    ref: Ref
    uid: str
    revision: str
    time: str  # RFC 3339; empty: it serves the revision already
    needs: frozenset[Ref] = frozenset()
    serves: str = ""  # the revision that it serves in between; empty: it leaves its Services

    @property
    def metadata(self) -> Manifest:
        """The metadata that it writes, as a merge patch."""
        annotations = {ANNOTATION_ASSIGNED: self.revision, ANNOTATION_SERVES: self.serves or None}
        if not self.time:
            return {"uid": self.uid, "labels": {names.LABEL_REVISION: self.revision}, "annotations": annotations}
        annotations[ANNOTATION_ASSIGNED_AT] = self.time
        if self.serves:
            return {"uid": self.uid, "annotations": annotations}
        return {"uid": self.uid, "labels": {names.LABEL_REVISION: None}, "annotations": annotations}

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields that it writes."""
        if not self.time:
            return ((("f:metadata", "f:labels", f"f:{names.LABEL_REVISION}"), self.revision),)
        return ((("f:metadata", "f:annotations", f"f:{ANNOTATION_ASSIGNED}"), self.revision),)


Action = Apply | Release | Adopt | Delete | Assign
Step = tuple[Action, ...]


@dataclass(frozen=True)
class ApplyRejected:
    """A write that was not done, with the reason and the message for the status."""

    ref: Ref
    reason: str
    message: str
    final: bool = True  # another attempt alone does not fix it
    retry_after: float = 0.0  # seconds until another attempt, from the API server
    lasts: bool = False  # it is reported at once, also if it is not final


_KEDA_PAUSED: Final = "autoscaling.keda.sh/paused"  # prefix of the annotations that pause KEDA
_OF_WORKLOADS: Final = frozenset({DEPLOYMENT, DISRUPTION_BUDGET, *SCALERS})  # kinds that a revision alone does not have
_STEPS: Final = range(1 + max(child.step for child in CHILD_KINDS))


def plan(
    snapshot: Snapshot, decisions: Decisions, desired: Sequence[Manifest]
) -> tuple[list[Step], list[ApplyRejected]]:
    """Return the writes that bring the snapshot to the desired objects, and the writes that are blocked.

    An object that refers to a foreign object, or to a blocked one, is not written.
    """
    rejections: list[ApplyRejected] = []
    writes: list[Apply] = []
    # A service that was deleted and made again: the garbage collector is about to take the old one's children.
    predecessor = f"{INFERENCE_SERVICE.name}/{snapshot.key.name}"
    blocked: set[Ref] = set()
    for manifest in sorted(desired, key=lambda manifest: child_kind(kind_of(manifest)).step):
        ref = ref_of(manifest)
        if ref in snapshot.foreign_objects:
            if snapshot.foreign_objects[ref] != predecessor:
                rejections.append(reject_taken_name(ref, snapshot.foreign_objects[ref]))
                blocked.add(ref)
        elif not blocked.isdisjoint(list_references(manifest)):
            blocked.add(ref)
        elif (write := _build_apply(snapshot, ref, manifest)) is not None:
            writes.append(write)
    refs = {ref_of(manifest) for manifest in desired}
    obsolete = _find_obsolete(snapshot, decisions, refs)
    # KEDA refuses a ScaledObject where an autoscaler has its Deployment already; pods stay as they are in between.
    replaced = {ref for write in writes if write.ref.kind in SCALERS for ref in _list_rival_scalers(write.ref)}
    first = [delete for delete in obsolete if delete.ref in replaced]
    first += [Delete(write.ref, uid) for write in writes if (uid := _get_unreadable_uid(snapshot, write.ref))]
    obsolete = [delete for delete in obsolete if delete.ref not in replaced]
    orphans = _find_orphans(snapshot, refs | {delete.ref for delete in obsolete} | replaced)
    steps: list[Step] = [
        (*_release_replicas(snapshot, writes, [each for each in desired if ref_of(each) not in blocked]), *orphans)
    ]
    steps += [tuple(first)]
    steps += [tuple(write for write in writes if child_kind(write.ref.kind).step == step) for step in _STEPS]
    steps += [tuple(_assign_pods(snapshot, decisions))]
    steps += [tuple(each for each in obsolete if child_kind(each.ref.kind).step == step) for step in reversed(_STEPS)]
    return [step for step in steps if step], rejections


def _assign_pods(snapshot: Snapshot, decisions: Decisions) -> Iterator[Assign]:
    """Yield the changes of pods' revisions, once the manifest and the Services that select them are written."""
    assigned = {uid: revision for each in decisions.tracks for uid, revision in each.assignments.items()}
    workloads = [workload for each in decisions.tracks for workload in each.workloads]
    shared = {workload.name for workload in workloads if len(workload.revisions) > 1}
    roots = {
        workload.name: Ref(SERVICE, each.track.service.track)
        for each in decisions.tracks
        for workload in each.workloads
        if workload.is_in_place
    }
    for pod in snapshot.pods:
        revision, is_in_place = assigned.get(pod.uid, pod.revision), pod.workload in roots
        needs = {Ref(CONFIG_MAP, pod.workload), Ref(SERVICE, revision)}
        if is_in_place:
            needs |= {roots[pod.workload], Ref(SERVICE, pod.label)}
        if revision != pod.revision:
            time, serves = format_time(snapshot.now), pod.serves if is_in_place else ""
            yield Assign(Ref(POD, pod.name), pod.uid, revision, time, frozenset(needs), serves)
        elif pod.is_unrecorded or (pod.is_unassigned and pod.workload in shared):
            # By its annotation, a pod that has not changed yet is known as one when the candidate is all others'.
            recorded = frozenset(needs) if is_in_place else frozenset()
            yield Assign(Ref(POD, pod.name), pod.uid, revision, "", recorded)


def list_references(body: Manifest) -> frozenset[Ref]:
    """Return the objects to which a child refers, and without which it would be of no use, or do harm.

    They have the name of its revision; those of a shared kind have the name of its service. A route refers to the
    Services of its rules besides.
    """
    kind, labels = kind_of(body), labels_of(body)
    name = labels[names.LABEL_SERVICE] if child_kind(kind).is_shared else revision_of(body)
    found = {Ref(each, name) for each in child_kind(kind).refers_to}
    rules = observed_rules(body) if kind == HTTP_ROUTE else ()
    return frozenset(found | {Ref(SERVICE, service) for rule in rules for service in {*rule.weights, *rule.copies}})


def reject_taken_name(ref: Ref, owner: str) -> ApplyRejected:
    """Return the rejection of an object whose name another owner's object has."""
    return ApplyRejected(
        ref,
        Reason.NAME_TAKEN,
        f"{ref} exists and belongs to {owner}; Conch does not change it. Rename the InferenceService,"
        f" or delete the {ref.kind.name}.",
    )


def _build_apply(snapshot: Snapshot, ref: Ref, manifest: Manifest) -> Apply | None:
    """Return the write of one object; None if the cluster has it already."""
    stamp = fingerprint(manifest)
    seen = snapshot.children.get(ref)
    if seen is not None and annotations_of(seen).get(ANNOTATION_APPLIED_HASH) == stamp and is_subset(seen, manifest):
        return None
    meta = manifest["metadata"]
    stamped = {**(meta.get("annotations") or {}), ANNOTATION_APPLIED_HASH: stamp}
    applied = {**manifest, "metadata": {**meta, "annotations": stamped}}
    needs = list_references(manifest) | {ref} | (_list_rival_scalers(ref) if ref.kind in SCALERS else set())
    if seen is None or _get_unreadable_uid(snapshot, ref):
        return Apply(ref, applied, new=True, needs=needs)
    return Apply(ref, applied, new=False, needs=needs, changes=_list_changes(seen, manifest, stamp))


def _list_changes(seen: Manifest, manifest: Manifest, stamp: str) -> tuple[Change, ...]:
    """Return the fields of a child that an apply changes: its stamp too, if it is not that of the last apply."""
    found = tuple((place, fingerprint({"": value})) for place, value in find_differences(seen, manifest))
    is_stamped = annotations_of(seen).get(ANNOTATION_APPLIED_HASH) == stamp
    return found if is_stamped else (*found, (STAMP, stamp))


def _get_unreadable_uid(snapshot: Snapshot, ref: Ref) -> str:
    """Return the uid of an unreadable ControllerRevision: its data is immutable, so it is replaced. Empty: none."""
    seen = snapshot.children.get(ref)
    if ref.kind != CONTROLLER_REVISION or seen is None or ref.name in snapshot.revisions:
        return ""
    return str(seen["metadata"]["uid"])


def _find_orphans(snapshot: Snapshot, settled: set[Ref]) -> list[Adopt]:
    """Return the orphans that stay and that no apply writes: past ControllerRevisions, completed Jobs."""
    owner = snapshot.service.owner_reference()
    return [
        Adopt(ref, child["metadata"]["uid"], owner)
        for ref, child in snapshot.children.items()
        if ref not in settled and controller_uid(child) is None and "deletionTimestamp" not in child["metadata"]
    ]


def _release_replicas(snapshot: Snapshot, writes: Sequence[Apply], desired: Sequence[Manifest]) -> list[Release]:
    """Return the handovers of replicas: to a new autoscaler, or where an autoscaler would leave 0 replicas.

    An autoscaler does nothing for a Deployment of no replicas, whatever set them to 0: its minimum is restored.
    """
    found = {
        write.ref.name: max(snapshot.replicas(write.ref.name), 1) for write in writes if _hands_over(snapshot, write)
    }
    for manifest in desired:
        if kind_of(manifest) in SCALERS and not snapshot.replicas(name := revision_of(manifest)):
            minimum = _get_min_replicas(snapshot, manifest)
            found |= {name: minimum} if minimum else {}
    return [
        release for name, replicas in found.items() if (release := _build_release(snapshot, name, replicas)) is not None
    ]


def _get_min_replicas(snapshot: Snapshot, manifest: Manifest) -> int:
    """Return the minimum replicas of an autoscaler; 0 where it may scale to zero, or a person has paused it."""
    if kind_of(manifest) == AUTOSCALER:
        return int(manifest["spec"]["minReplicas"])
    seen = snapshot.children.get(ref_of(manifest)) or {}
    paused = any(name.startswith(_KEDA_PAUSED) for name in annotations_of(seen))
    return 0 if paused else int(manifest["spec"]["minReplicaCount"])


def _build_release(snapshot: Snapshot, name: str, replicas: int) -> Release | None:
    """Set a Deployment's replicas as another field manager; None where there is no Deployment."""
    seen = snapshot.deployment(name)
    if seen is None:
        return None
    meta = {"name": name, "namespace": snapshot.key.namespace}
    meta["uid"] = seen["metadata"]["uid"]  # a Deployment that was deleted meanwhile is not created from this
    head = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name}
    return Release(Ref(DEPLOYMENT, name), {**head, "metadata": meta, "spec": {"replicas": replicas}})


def _hands_over(snapshot: Snapshot, write: Apply) -> bool:
    """Whether a write drops the replicas of a Deployment, which an autoscaler owns from now on."""
    if write.ref.kind != DEPLOYMENT or "replicas" in write.manifest["spec"]:
        return False
    return not any(Ref(kind, write.ref.name) in snapshot.children for kind in SCALERS)


def _list_rival_scalers(ref: Ref) -> set[Ref]:
    """Return the other autoscalers of the same pods."""
    return {Ref(kind, ref.name) for kind in SCALERS if kind != ref.kind}


def _find_obsolete(snapshot: Snapshot, decisions: Decisions, desired: set[Ref]) -> list[Delete]:
    """Return the deletions of children: of past revisions, or of features that the spec no longer has."""
    obsolete = []
    for ref, child in snapshot.children.items():
        revision = revision_of(child)
        if ref in desired or "deletionTimestamp" in child["metadata"]:
            continue
        if ref.kind == CONTROLLER_REVISION:
            keep = revision not in decisions.forgotten
        else:
            # Of a revision without a record nothing is desired, and what it has stays.
            active = decisions.active_workloads if ref.kind in _OF_WORKLOADS else decisions.active_revisions
            keep = revision in active and (ref.kind not in SCALERS or revision not in snapshot.revisions)
        if not keep:
            obsolete.append(Delete(ref, child["metadata"]["uid"], _list_referrers(snapshot, ref)))
    return obsolete


def _list_referrers(snapshot: Snapshot, ref: Ref) -> frozenset[Ref]:
    """Return the children that refer to an object; a ControllerRevision is deleted after all else of its revision."""
    users = {
        other
        for other, child in snapshot.children.items()
        if ref in list_references(child) or (ref.kind == CONTROLLER_REVISION and revision_of(child) == ref.name)
    }
    return frozenset(users - {ref})
