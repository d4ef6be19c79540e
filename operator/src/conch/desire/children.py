"""The children of a service, with a builder for each kind.

An object comes after the objects that it refers to.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from conch.api import InferenceService
from conch.api.kinds import DEPLOYMENT, DISRUPTION_BUDGET, JOB, SERVICE, Ref
from conch.api.meta import Manifest, child, selector
from conch.decide import Decision, Decisions, RevisionReplicas
from conch.desire import parity, warmup
from conch.desire.defaults import PodDefaults
from conch.desire.jobs import Program, build_revision_job
from conch.desire.revision import (
    build_config_map,
    build_controller_revision,
    build_revision,
    enter_history,
    record_content,
)
from conch.desire.scaling import build_autoscaler, is_autoscaled
from conch.observe import Revision, Snapshot
from conch.traffic import TrackRoute, root_service, shared_resources
from conch.traffic.service import ports
from conch_contract import JobReport, names
from conch_contract.revision_jobs import PARITY, REVISION_JOBS, WARMUP, RevisionJob

PROGRAMS: Final[Mapping[RevisionJob[JobReport], Callable[[Decision, Revision], Program | None]]] = {
    WARMUP: warmup.find_program,
    PARITY: parity.find_program,
}
"""Functions that return the program of a new Job, by row."""


def desire(snapshot: Snapshot, decisions: Decisions, defaults: PodDefaults) -> list[Manifest]:
    """Return all desired objects, in an order in which they can be created."""
    own = [manifest for decision in decisions.tracks for manifest in _build_track(decision, defaults)]
    return [*own, *shared_resources(snapshot, decisions.track_routes)]


def _build_track(decision: Decision, defaults: PodDefaults) -> list[Manifest]:
    """Return the objects of one track."""
    track, service = decision.track, decision.track.service
    manifests: list[Manifest] = []
    for replicas in decision.replicas:
        revision = _render(decision, replicas, defaults)
        if revision is None:
            continue  # its ControllerRevision was deleted; its Deployment stays as it is until a rollout replaces it
        manifests += [
            build_controller_revision(service, revision),
            build_config_map(service, revision),
            build_revision_service(service, revision),
            build_disruption_budget(service, revision),
            build_deployment(service, revision, replicas),
        ]
        if is_autoscaled(service, replicas):
            manifests.append(build_autoscaler(track, replicas))
        if replicas.name == decision.wanted:
            manifests += _build_jobs(decision, revision)
    return [*manifests, root_service(TrackRoute(service, decision.serving, decision.shares))]


def _render(decision: Decision, replicas: RevisionReplicas, defaults: PodDefaults) -> Revision | None:
    """Return the stored revision, or a new one. A revision of a rollback gets the newest number."""
    track = decision.track
    revision = track.revisions.get(replicas.name)
    if replicas.name == decision.wanted:
        if revision is None:
            revision = build_revision(track.service, replicas.name, 0, defaults)
        if revision.number != decision.number:
            revision = enter_history(track, revision, decision.number)
    return record_content(track, revision) if revision is not None else None


def build_deployment(service: InferenceService, revision: Revision, replicas: RevisionReplicas) -> Manifest:
    """Build the Deployment of a revision, without replicas if an autoscaler sets them."""
    spec: Manifest = {
        "selector": {"matchLabels": selector(service, revision.name)},
        "template": revision.template,
        "revisionHistoryLimit": 0,  # each revision has its own Deployment, without earlier ReplicaSets
        "progressDeadlineSeconds": max(1, round(service.spec.rollout.progress_deadline_seconds)),
    }
    if not is_autoscaled(service, replicas):
        spec["replicas"] = replicas.minimum
    return {**child(service, DEPLOYMENT, revision.name, revision.name), "spec": spec}


def _build_jobs(decision: Decision, revision: Revision) -> Iterator[Manifest]:
    """Yield the new Jobs of a candidate.

    An existing Job stays as it is: it is immutable, and is deleted with its revision.
    """
    for job in REVISION_JOBS:
        program = PROGRAMS[job](decision, revision)
        if program is not None and Ref(JOB, job.format_name(revision.name)) not in decision.track.children:
            yield build_revision_job(job, decision.track.service, revision, program)


def build_revision_service(service: InferenceService, revision: Revision) -> Manifest:
    """Build the Service of a revision, which routes and Prometheus use."""
    return {
        **child(service, SERVICE, revision.name, revision.name),
        "spec": {
            "selector": selector(service, revision.name),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}),
        },
    }


def build_disruption_budget(service: InferenceService, revision: Revision) -> Manifest:
    """Build the PodDisruptionBudget of a revision: a drain evicts a quarter of its pods at once, at least one.

    Each revision has its own. With one for both revisions of a rollout, a drain could evict all pods of one of them.
    """
    return {
        **child(service, DISRUPTION_BUDGET, revision.name, revision.name),
        "spec": {
            "selector": {"matchLabels": selector(service, revision.name)},
            "maxUnavailable": "25%",  # rounded up, so that a service with one pod does not block a drain
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
