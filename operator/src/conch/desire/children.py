"""The children of a service. `desire` is the list; each builder below is one kind.

Order: what is referred to stands before what refers to it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from conch.api import InferenceService
from conch.api.kinds import DEPLOYMENT, DISRUPTION_BUDGET, JOB, SERVICE, Ref
from conch.api.meta import Manifest, child, selector
from conch.decide import Decision, Decisions, RevisionReplicas
from conch.desire import parity, warmup
from conch.desire.defaults import PodDefaults
from conch.desire.jobs import Program, revision_job
from conch.desire.revision import asked_for, config_map, controller_revision, new_revision, served
from conch.desire.scaling import autoscaler, scaled
from conch.observe import Revision, Snapshot
from conch.traffic import TrackRoute, root_service, shared_resources
from conch.traffic.service import ports
from conch_contract import JobReport, names
from conch_contract.revision_jobs import PARITY, REVISION_JOBS, WARMUP, RevisionJob

PROGRAMS: Final[Mapping[RevisionJob[JobReport], Callable[[Decision, Revision], Program | None]]] = {
    WARMUP: warmup.find_program,
    PARITY: parity.find_program,
}
"""By row, the function that returns the program of a Job that begins."""


def desire(snapshot: Snapshot, decisions: Decisions, defaults: PodDefaults) -> list[Manifest]:
    """Return all objects that should exist, in an order in which they can be created."""
    own = [manifest for decision in decisions.tracks for manifest in _track(decision, defaults)]
    return [*own, *shared_resources(snapshot, decisions.track_routes)]


def _track(decision: Decision, defaults: PodDefaults) -> list[Manifest]:
    """Return the objects of the predictor or a variant alone."""
    track, service = decision.track, decision.track.service
    manifests: list[Manifest] = []
    for replicas in decision.replicas:
        revision = _render(decision, replicas, defaults)
        if revision is None:
            continue  # its record was deleted by hand; its Deployment stays as it is until it is replaced
        manifests += [
            controller_revision(service, revision),
            config_map(service, revision),
            revision_service(service, revision),
            disruption_budget(service, revision),
            deployment(service, revision, replicas),
        ]
        if scaled(service, replicas):
            manifests.append(autoscaler(track, replicas))
        if replicas.name == decision.wanted:
            manifests += _jobs(decision, revision)
    return [*manifests, root_service(TrackRoute(service, decision.serving, decision.shares))]


def _render(decision: Decision, replicas: RevisionReplicas, defaults: PodDefaults) -> Revision | None:
    """Return the stored revision; a new one is rendered now, and one that returns gets the newest number."""
    track = decision.track
    revision = track.revisions.get(replicas.name)
    if replicas.name == decision.wanted:
        if revision is None:
            revision = new_revision(track.service, replicas.name, 0, defaults)
        if revision.number != decision.number:
            revision = asked_for(track, revision, decision.number)
    return served(track, revision) if revision is not None else None


def deployment(service: InferenceService, revision: Revision, replicas: RevisionReplicas) -> Manifest:
    """Build a revision's Deployment. Where an HPA exists, the replicas are the HPA's."""
    spec: Manifest = {
        "selector": {"matchLabels": selector(service, revision.name)},
        "template": revision.template,
        "revisionHistoryLimit": 0,  # a revision is a Deployment of its own; there is nothing to go back to in it
        "progressDeadlineSeconds": max(1, round(service.spec.rollout.progress_deadline_seconds)),
    }
    if not scaled(service, replicas):
        spec["replicas"] = replicas.minimum
    return {**child(service, DEPLOYMENT, revision.name, revision.name), "spec": spec}


def _jobs(decision: Decision, revision: Revision) -> Iterator[Manifest]:
    """Yield the Jobs of a candidate that begin.

    A Job that exists stays as it is: a Job cannot be changed, and it is deleted with its revision.
    """
    for job in REVISION_JOBS:
        program = PROGRAMS[job](decision, revision)
        if program is not None and Ref(JOB, job.format_name(revision.name)) not in decision.track.children:
            yield revision_job(job, decision.track.service, revision, program)


def revision_service(service: InferenceService, revision: Revision) -> Manifest:
    """Build the Service of one revision: where its metrics are, and what routes refer to."""
    return {
        **child(service, SERVICE, revision.name, revision.name),
        "spec": {
            "selector": selector(service, revision.name),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}),
        },
    }


def disruption_budget(service: InferenceService, revision: Revision) -> Manifest:
    """Build a revision's PodDisruptionBudget: a drain takes a quarter of its pods at a time, and one of one.

    Each revision has its own: of one for both revisions of a rollout, all that go could be the one's that serves.
    """
    return {
        **child(service, DISRUPTION_BUDGET, revision.name, revision.name),
        "spec": {
            "selector": {"matchLabels": selector(service, revision.name)},
            "maxUnavailable": "25%",  # rounded up, so that a service of one pod does not hold a drain for ever
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
