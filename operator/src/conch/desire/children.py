"""The children of a service: of each track its revisions, their workloads and Jobs, and its root Service.

An object comes after the objects that it refers to.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from conch.api.kinds import DEPLOYMENT, JOB, Ref
from conch.api.meta import Manifest
from conch.decide import Decision, Decisions
from conch.decide.source import list_watched
from conch.desire import parity, warmup
from conch.desire.defaults import PodDefaults
from conch.desire.jobs import Program, build_revision_job
from conch.desire.peers import build_peers_service, has_peers
from conch.desire.revision import (
    build_controller_revision,
    build_revision,
    enter_history,
    record_contents,
)
from conch.desire.workload import build_revision_objects, build_workload
from conch.observe import Revision, Snapshot
from conch.traffic import TrackRoute, root_service, shared_resources
from conch_contract import JobReport
from conch_contract.revision_jobs import PARITY, WARMUP, RevisionJob

PROGRAMS: Final[Mapping[RevisionJob[JobReport], Callable[[Decision, Revision], Program]]] = {
    WARMUP: warmup.build_due_program,
    PARITY: parity.build_due_program,
}
"""Functions that return the program of a due Job, by row."""


def desire(snapshot: Snapshot, decisions: Decisions, defaults: PodDefaults) -> list[Manifest]:
    """Return all desired objects, in an order in which they can be created."""
    own = [manifest for decision in decisions.tracks for manifest in _build_track(decision, defaults)]
    templates = [manifest["spec"]["template"] for manifest in own if manifest["kind"] == DEPLOYMENT.name]
    templates += [snapshot.revisions[name].template for name in decisions.kept & snapshot.revisions.keys()]
    if any(map(has_peers, templates)):
        own.append(build_peers_service(snapshot.service))
    return [*own, *shared_resources(snapshot, decisions.track_routes)]


def _build_track(decision: Decision, defaults: PodDefaults) -> list[Manifest]:
    """Return the objects of one track."""
    track, service = decision.track, decision.track.service
    manifests = _record_wanted(decision, defaults)
    for workload in decision.workloads:
        rendered = (_render(decision, workload.name, name, defaults) for name in workload.revisions)
        revisions = {revision.name: revision for revision in rendered if revision is not None}
        manifests += [build_controller_revision(service, revision) for revision in revisions.values()]
        for revision in revisions.values():
            manifests += build_revision_objects(track, workload, revision)
        origin = revisions.get(workload.name) or track.revisions.get(workload.name)
        names = sorted(workload.revisions, key=lambda name: name != workload.main)
        manifests += build_workload(track, workload, origin, [revisions.get(name) for name in names])
        if decision.wanted in revisions:
            manifests += _build_job(decision, revisions[decision.wanted])
    swapped = {name: each.name for each in decision.workloads for name in each.selecting_all}
    track_route = TrackRoute(service, decision.serving, decision.shares, swapped_workloads=swapped)
    return [*manifests, root_service(track_route)]


def _record_wanted(decision: Decision, defaults: PodDefaults) -> list[Manifest]:
    """Return the record of the wanted revision while it has no pods, if its content is not in the spec.

    Its pods may have to wait until others have ended, and then no pod reports any more which content is wanted.
    """
    has_pods = any(decision.wanted in workload.revisions for workload in decision.workloads)
    if has_pods or not list_watched(decision.track.service, rolls_out=True):
        return []
    revision = _render(decision, decision.track.workload_of(decision.wanted), decision.wanted, defaults)
    return [build_controller_revision(decision.track.service, revision)] if revision else []


def _render(decision: Decision, workload: str, name: str, defaults: PodDefaults) -> Revision | None:
    """Return the stored revision, or a new one; None: it is neither stored nor new.

    A revision of a rollback gets the newest number.

    Args:
        decision: for its track.
        workload: Name of the workload whose pods serve it.
        name: Name of the revision.
        defaults: Defaults of pods.
    """
    track = decision.track
    revision = track.revisions.get(name)
    if name == decision.wanted:
        if revision is None:
            revision = build_revision(track.service, name, 0, defaults, decision.sources)
        if revision.number != decision.number:
            revision = enter_history(track, revision, decision.number)
    if revision is None:
        return None
    return record_contents(track, replace(revision, workload=workload if workload != name else ""))


def _build_job(decision: Decision, revision: Revision) -> Iterator[Manifest]:
    """Yield the Job that is due, if it is new.

    An existing Job stays as it is: it is immutable, and is deleted with its revision.
    """
    job = decision.due_job
    if job is not None and Ref(JOB, job.format_name(revision.name)) not in decision.track.children:
        yield build_revision_job(job, decision.track.service, revision, PROGRAMS[job](decision, revision))
