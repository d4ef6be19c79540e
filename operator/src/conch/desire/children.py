"""The children of a service. `desire` is the list; each builder below is one kind.

Order: what is referred to stands before what refers to it.
"""

from collections.abc import Iterator

from conch.api import InferenceService
from conch.api.kinds import DEPLOYMENT, DISRUPTION_BUDGET, JOB, SERVICE, Ref
from conch.api.meta import Manifest, child, selector
from conch.decide import Decision, Decisions, RevisionReplicas
from conch.decide.gates import stable_model
from conch.desire.defaults import PodDefaults
from conch.desire.parity import parity_job, parity_job_name
from conch.desire.revision import asked_for, config_map, controller_revision, new_revision, served
from conch.desire.scaling import autoscaler, scaled
from conch.desire.warmup import warmup_job, warmup_job_name
from conch.observe import Revision, Snapshot
from conch.traffic import TrackRoute, root_service, shared_resources
from conch.traffic.service import ports
from conch_contract import names


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
    """The Jobs of a candidate that are to begin.

    One that is there is left as it is: a Job cannot be changed, and it goes with its revision.
    """
    track, service = decision.track, decision.track.service
    gate = service.spec.rollout.parity
    if decision.warmup and Ref(JOB, warmup_job_name(revision.name)) not in track.children:
        yield warmup_job(service, revision.name, revision.template, revision.manifest, decision.needed)
    stable = decision.compared
    if stable and gate and gate.parity and Ref(JOB, parity_job_name(revision.name)) not in track.children:
        yield parity_job(service, revision, stable, stable_model(track, stable), gate.parity)


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
