"""What the next reconcile needs: reports of pods, measurements, events, and when it is due without an event.

A settled service needs nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conch.api import Phase, RevisionStatus, RolloutPhase
from conch.api.times import parse_time
from conch.decide.diagnosis import failing_seconds, is_starting
from conch.decide.gates import build_queries
from conch.decide.mirror import ARRIVING, shadows
from conch.decide.rollout.waits import seconds_to_wait
from conch.decide.scale_to_zero import is_scaled_to_zero
from conch.decide.signatures import is_signed
from conch.decide.source import find_watching_pod, seconds_to_refresh
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.decide.warmup import warmed
from conch.observe import Pod, Snapshot, Track
from conch.observe.fields import moment
from conch.observe.jobs import has_failed
from conch.observe.measured import PrometheusQuery
from conch_contract import ModelState, SignaturePolicy
from conch_contract.report import TRANSIENT_WARNINGS
from conch_contract.revision_jobs import REVISION_JOBS, WARMUP

# Seconds between two reads of the report of a pod that is not ready yet: at first, and at most.
MIN_REPORT_SECONDS: Final = 1.0
MAX_REPORT_SECONDS: Final = 8.0
# Seconds between two reconciles of a revision that is not ready yet, likewise. Events and new reports come before;
# these are for what depends on the time alone, such as a deadline.
MIN_CHECK_SECONDS: Final = 10.0
MAX_CHECK_SECONDS: Final = 30.0
# Seconds between two reconciles of a rollout that waits for GPUs; an event of nodes or pods comes before.
ADMISSION_SECONDS: Final = 20.0
# Seconds from a pod's node to its first container, and from a Job to its first pod, before their events are listed.
START_PATIENCE: Final = 10.0
# Seconds between two lists of the events of an object that does not start: at first, and at most.
MIN_EVENTS_SECONDS: Final = 9.0
MAX_EVENTS_SECONDS: Final = 60.0
# Seconds for which reports of pods that are ready are awaited, where a network policy prevents them; then the seconds
# between two reads, while the status has a warning that ends without an event.
REPORT_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class ReportRequest:
    """A pod whose agent has to report again and again.

    Attributes:
        pod: The pod.
        period: Seconds from an answer to the next request.
    """

    pod: Pod
    period: float


def build_report_requests(snapshot: Snapshot) -> tuple[ReportRequest, ...]:
    """Return the pods whose reports the status does not have yet, and one of each track with watched sources.

    Of a settled fleet without watched sources there are none.
    """
    policy = snapshot.signature_policy
    reported = {each.name: _is_reported(snapshot.now, each, policy) for each in snapshot.service.status.revisions}
    watching = [(find_watching_pod(track), seconds_to_refresh(track.service)) for track in snapshot.tracks]
    periods = {pod.uid: seconds for pod, seconds in watching if pod is not None and seconds is not None}
    for pod in snapshot.pods:
        if not pod.ready or pod.label != pod.revision or not reported.get(pod.revision, False):
            periods[pod.uid] = min(_report_seconds(pod, snapshot.now), periods.get(pod.uid, REPORT_PATIENCE))
    reachable = (pod for pod in snapshot.pods if pod.ip and not pod.leaving and pod.uid in periods)
    return tuple(ReportRequest(pod, periods[pod.uid]) for pod in reachable)


def _report_seconds(pod: Pod, now: float) -> float:
    """Return the seconds between two reads of the report of a pod that is not settled.

    They are a tenth of the seconds for which it has been awaited; of a pod that has been ready for long, a minute.
    """
    if pod.ready and now - pod.up_since > REPORT_PATIENCE:
        return REPORT_PATIENCE
    awaited = now - max(pod.created_at, pod.assigned_at, pod.up_since if pod.ready else 0.0)
    return _limit_tenth(awaited, MIN_REPORT_SECONDS, MAX_REPORT_SECONDS)


def find_stuck_objects(snapshot: Snapshot) -> Mapping[str, float]:
    """Return the uids of Jobs and pods that do not start, for reasons that only events contain.

    Each with the seconds between two lists of its events, a tenth of those for which it has been stuck.
    """
    since = {uid: created_at(job) for uid, job in snapshot.idle_jobs.items()}
    since |= {pod.uid: pod.status["readySince"] for pod in snapshot.pods if not pod.leaving and is_starting(pod)}
    ages = {uid: snapshot.now - parse_time(time) for uid, time in since.items() if time}
    return {
        uid: _limit_tenth(age, MIN_EVENTS_SECONDS, MAX_EVENTS_SECONDS)
        for uid, age in ages.items()
        if age >= START_PATIENCE
    }


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


def _of_candidate(track: Track) -> MeasurementRequest:
    service, rollout = track.service, track.service.status.rollout
    gates = service.spec.rollout.analysis
    if all(gate.is_measured_once for gate in gates) or rollout is None or rollout.phase == RolloutPhase.FAILED:
        return MeasurementRequest()
    filled = {
        "service": track.key.name,
        "namespace": track.key.namespace,
        "revision": rollout.revision,
        "stable": service.status.stable or "",
    }
    queries = {(rollout.revision, gate): query for gate, query in build_queries(gates, filled).items()}
    return MeasurementRequest({rollout.revision: service.model_name}, queries)


def created_at(job: Mapping[str, Any]) -> str:
    """Return when an object was created; empty where it is not known."""
    return str(job["metadata"].get("creationTimestamp") or "")


def _waits_for_job(track: Track, state: RolloutState | None, wanted: str) -> bool:
    """Whether a Job of the wanted revision has no pod, and its result is needed."""
    idle = {job["metadata"]["name"] for job in track.idle_jobs.values() if not has_failed(job)}
    needed = dict.fromkeys(REVISION_JOBS, state is not None) | {WARMUP: warmed(track, wanted) is None}
    return any(needed[job] and job.format_name(wanted) in idle for job in REVISION_JOBS)


def seconds_to_requeue(track: Track, state: RolloutState | None, wanted: str) -> float | None:
    """Return the seconds until the next reconcile without an event; None: an event is awaited."""
    return min(_waits(track, state, wanted), default=None)


def _waits(track: Track, state: RolloutState | None, wanted: str) -> Iterator[float]:
    failing = (failing_seconds(track, revision) for revision in {pod.revision for pod in track.pods if pod.failed_at})
    yield from (seconds for seconds in failing if seconds is not None)
    in_place = (track.now - pod.assigned_at for pod in track.pods if pod.is_in_place and not pod.leaving)
    yield from (_limit_check_wait(seconds) for seconds in in_place)
    starting = (moment(pod.status["readySince"]) for pod in track.pods if not pod.leaving and is_starting(pod))
    patience = (since + START_PATIENCE - track.now for since in starting if since is not None)
    yield from (seconds for seconds in patience if seconds > 0)
    if state is not None and state.awaits_admission:
        yield ADMISSION_SECONDS
        return
    if _waits_for_job(track, state, wanted):
        yield START_PATIENCE
    if state is None or not state.has_failed:
        revision = track.service.status.revision(wanted)
        if not _are_all_ready(track, wanted) and not is_scaled_to_zero(track, state, wanted):
            yield _limit_check_wait(age(track, wanted))
        elif revision is None or not (
            _is_reported(track.now, revision, track.signature_policy) or _has_been_up(track.now, revision)
        ):
            yield MIN_CHECK_SECONDS
    if state is not None:
        rollout = track.service.spec.rollout
        if (wait := seconds_to_wait(state, rollout, track.now)) is not None:
            yield wait
        if state.gates and not state.has_failed:
            gates = strategy_of(state, rollout).gates(rollout)
            yield from (gate.interval_seconds for gate in gates if not gate.is_measured_once)


def _limit_check_wait(seconds: float) -> float:
    """Return the seconds until the next reconcile of what is awaited, a tenth of those for which it has been."""
    return _limit_tenth(seconds, MIN_CHECK_SECONDS, MAX_CHECK_SECONDS)


def _limit_tenth(seconds: float, least: float, most: float) -> float:
    """Return a tenth of the seconds for which something has been awaited, within bounds."""
    return min(max(least, seconds / 10), most)


def age(track: Track, name: str) -> float:
    """Return the seconds since a revision's Deployment was created, or the last pod got it; 0 before that."""
    deployment = track.deployment(track.workload_of(name))
    if deployment is None:
        return 0.0
    assigned = max((pod.assigned_at for pod in track.pods_of(name)), default=0.0)
    return max(0.0, track.now - max(parse_time(deployment["metadata"]["creationTimestamp"]), assigned))


def _are_all_ready(track: Track, name: str) -> bool:
    """Whether a revision has all the pods of its Deployment's replicas, and all are ready.

    Of a candidate that shares them with the stable revision they are those that it has got so far.
    """
    pods, workload = track.pods_of(name), track.workload_of(name)
    others = [pod for pod in track.pods_in(workload) if pod.revision != name]
    return len(pods) + len(others) >= track.replicas(workload) > 0 and all(pod.ready for pod in pods)


def _is_reported(now: float, revision: RevisionStatus, policy: SignaturePolicy | None) -> bool:
    """Whether the status has every model's digest and state Ready. After a minute without reports it counts as such.

    Not with a warning that ends while the pod stays ready, nor with a model that lacks the signature of the policy in
    force: whether it has it depends on all pods.
    """
    if not all(is_signed(model, policy) for model in revision.models):
        return False
    warnings = {warning.reason for model in revision.models for warning in model.warnings}
    if warnings & TRANSIENT_WARNINGS:
        return False
    if revision.models and all(model.digest and model.state == ModelState.READY for model in revision.models):
        return True
    return _has_been_up(now, revision)


def _has_been_up(now: float, revision: RevisionStatus) -> bool:
    """Whether a revision has been ready for a minute."""
    is_up = revision.phase == Phase.READY and revision.since is not None
    return is_up and now - parse_time(revision.since or "") > REPORT_PATIENCE
