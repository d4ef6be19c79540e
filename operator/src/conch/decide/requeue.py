"""Whom to ask, what to measure, and when to look again though nothing happens. A settled service asks for nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conch.api import Admission, Phase, RevisionStatus, RolloutPhase, RolloutStatus
from conch.api.times import parse_time
from conch.decide.diagnosis import failing_seconds, is_starting
from conch.decide.gates import build_queries
from conch.decide.mirror import ARRIVING, shadows
from conch.decide.scale_to_zero import asleep
from conch.decide.waits import wait_of
from conch.decide.warm import warmed
from conch.observe import Pod, Snapshot
from conch.observe.measured import PrometheusQuery
from conch.observe.warmup import has_failed
from conch_contract import ModelState, names

# How often pods that are not ready yet are asked, in seconds: first, and at the most.
ASK_FIRST: Final = 1.0
ASK_LIMIT: Final = 8.0
# How often a rollout that waits for GPUs says that it still does; news of them wake it.
ROOM_LOOK: Final = 20.0
# Seconds from a pod's node to its first container, and from a Job to its first pod, before their events are listed.
START_PATIENCE: Final = 10.0
# How long pods that are ready are asked what they serve, when a network policy lets nobody ask.
ASK_PATIENCE: Final = 60.0


def pods_to_ask(snapshot: Snapshot) -> tuple[Pod, ...]:
    """Return the pods whose agents know something that the status does not: a settled fleet is left alone."""
    told = {revision.name: _told(snapshot, revision) for revision in snapshot.service.status.revisions}
    return tuple(
        pod
        for pod in snapshot.pods
        if pod.ip and not pod.leaving and (not pod.ready or not told.get(pod.revision, False))
    )


def find_stuck_objects(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the uids of Jobs and pods that do not start, for reasons that only events contain."""
    since = {uid: created_at(job) for uid, job in snapshot.idle_jobs.items()}
    since |= {pod.uid: pod.status["readySince"] for pod in snapshot.pods if not pod.leaving and is_starting(pod)}
    return tuple(uid for uid, time in since.items() if time and snapshot.now - parse_time(time) > START_PATIENCE)


@dataclass(frozen=True)
class MeasurementRequest:
    """Measurements that the gates of candidates evaluate; empty where there is no gate."""

    models: Mapping[str, str] = field(default_factory=dict)  # Triton's name of the model, by revision
    queries: Mapping[tuple[str, str], PrometheusQuery] = field(default_factory=dict)  # by revision and gate


def build_measurement_request(snapshot: Snapshot) -> MeasurementRequest:
    """Return the measurements that rollouts in progress need: from before their first request, as a baseline.

    Also those of shadows, until copies are known to arrive.
    """
    found = [_of_candidate(track) for track in snapshot.tracks]
    models = {revision: model for one in found for revision, model in one.models.items()}
    for shadow in shadows(snapshot):
        if shadow.known != ARRIVING:
            models |= dict.fromkeys((shadow.copied, shadow.revision), snapshot.service.model_name)
    return MeasurementRequest(models, {name: query for one in found for name, query in one.queries.items()})


def _of_candidate(snapshot: Snapshot) -> MeasurementRequest:
    service, memory = snapshot.service, snapshot.service.status.rollout
    gates = service.spec.rollout.analysis
    if all(gate.parity is not None for gate in gates) or memory is None or memory.phase == RolloutPhase.FAILED:
        return MeasurementRequest()
    filled = {
        "service": snapshot.key.name,
        "namespace": snapshot.key.namespace,
        "revision": memory.revision,
        "stable": service.status.stable or "",
    }
    asked = {(memory.revision, gate): query for gate, query in build_queries(gates, filled).items()}
    return MeasurementRequest({memory.revision: service.model_name}, asked)


def created_at(job: Mapping[str, Any]) -> str:
    """Return when an object was created; empty where it is not known."""
    return str(job["metadata"].get("creationTimestamp") or "")


def _waits_for_job(snapshot: Snapshot, memory: RolloutStatus | None, wanted: str) -> bool:
    """Whether a Job of the wanted revision has no pod, and its result is needed."""
    for job in snapshot.idle_jobs.values():
        labels = job["metadata"].get("labels") or {}
        if labels.get(names.LABEL_REVISION) == wanted and not has_failed(job):
            return memory is not None if names.LABEL_PARITY in labels else warmed(snapshot, wanted) is None
    return False


def next_look(snapshot: Snapshot, memory: RolloutStatus | None, wanted: str) -> float | None:
    """Return the seconds until the service wants to be looked at again; None: events alone are awaited."""
    return min(_moments(snapshot, memory, wanted), default=None)


def _moments(snapshot: Snapshot, memory: RolloutStatus | None, wanted: str) -> Iterator[float]:
    failing = (
        failing_seconds(snapshot, revision) for revision in {pod.revision for pod in snapshot.pods if pod.failed_at}
    )
    yield from (seconds for seconds in failing if seconds is not None)
    if memory is not None and memory.admission == Admission.PENDING and memory.phase != RolloutPhase.FAILED:
        yield ROOM_LOOK
        return
    if _waits_for_job(snapshot, memory, wanted):
        yield START_PATIENCE
    if memory is None or memory.phase != RolloutPhase.FAILED:
        up = _all_up(snapshot, wanted) or asleep(snapshot, memory, wanted)
        said = snapshot.service.status.revision(wanted)
        if not up:
            yield min(max(ASK_FIRST, age(snapshot, wanted) / 10), ASK_LIMIT)
        elif said is None or not _told(snapshot, said):
            yield ASK_LIMIT
    if memory is not None:
        rollout = snapshot.service.spec.rollout
        if (clock := wait_of(memory, rollout, snapshot.now)) is not None:
            yield clock
        if memory.gates and memory.phase != RolloutPhase.FAILED:
            yield from (gate.interval_seconds for gate in rollout.analysis if not gate.parity)


def age(snapshot: Snapshot, name: str) -> float:
    """Seconds since a revision's Deployment was made; 0 before that."""
    deployment = snapshot.deployment(name)
    return max(0.0, snapshot.now - parse_time(deployment["metadata"]["creationTimestamp"])) if deployment else 0.0


def _all_up(snapshot: Snapshot, name: str) -> bool:
    """Whether a revision has all the pods that its Deployment wants, and all are ready."""
    pods = snapshot.pods_of(name)
    return len(pods) >= snapshot.replicas(name) > 0 and all(pod.ready for pod in pods)


def _told(snapshot: Snapshot, revision: RevisionStatus) -> bool:
    """Whether the status says of every model what was fetched and that it is up; silence counts in the end."""
    if revision.models and all(model.digest and model.state == ModelState.READY for model in revision.models):
        return True
    up = revision.phase == Phase.READY and revision.since is not None
    return up and snapshot.now - parse_time(revision.since or "") > ASK_PATIENCE
