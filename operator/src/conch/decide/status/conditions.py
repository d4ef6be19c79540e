"""The conditions of the predictor or a variant, and of the service as a whole.

They are positive, and their time changes only with their status; `build` sets it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from conch.api import ConditionType, InferenceService
from conch.api.reasons import Reason
from conch.decide.context import least_replicas
from conch.decide.diagnosis import diagnose_candidate, find_changed_content
from conch.decide.jobs import find_refused_job
from conch.decide.scale_to_zero import is_scaled_to_zero, is_waking_up
from conch.decide.status.autoscaling import build_autoscaling_condition
from conch.decide.status.condition import OF_VARIANT, FailedWrite, PendingCondition, Truth
from conch.decide.status.revisions import find_failing_requests, phase_of
from conch.decide.status.source import build_source_condition
from conch.decide.strategies import STRATEGIES
from conch.decide.track import Decision
from conch.decide.warmup import warmup_failed
from conch.observe import Finding, Track
from conch.traffic import find_endpoint_lag, router_of
from conch_contract.revision_jobs import WARMUP

_WAKES: Final = "KEDA starts a pod when a trigger is active."
_READY, _SERVING = ConditionType.READY, ConditionType.SERVING
_COMPLETE, _TRAFFIC = ConditionType.ROLLOUT_COMPLETE, ConditionType.TRAFFIC_PROGRAMMED

_UNMET: Final = frozenset({Reason.INSUFFICIENT_GPU, Reason.SIGNATURE_POLICY_UNREADABLE})
# Reasons that every change of a route has for a moment.
_TRANSIENT: Final = frozenset({Reason.ROUTE_MISSING, Reason.GATEWAY_PENDING})
# A reason that the first write of a route has for a moment too; only time shows whether it lasts.
_PERHAPS_TRANSIENT: Final = frozenset({Reason.GATEWAY_NOT_RESPONDING})


def build_conditions(
    decision: Decision, failed_write: FailedWrite | None, *, is_routed: bool
) -> Sequence[PendingCondition]:
    """Return all conditions that the predictor, or a variant, has at this moment.

    Args:
        decision: for it.
        failed_write: why an object of it is not written.
        is_routed: whether the route is written as it should be.
    """
    facts = _Facts(decision, failed_write, is_routed)
    conditions = [_ready(facts), _serving(facts), _rollout_complete(facts)]
    if facts.service.spec.predictor.scales:
        conditions.append(build_autoscaling_condition(facts.track, decision.serving))
    if facts.service.spec.traffic is not None:
        conditions.append(_traffic_programmed(facts))
    if (source := build_source_condition(decision)) is not None:
        conditions.append(source)
    stalled = _stalled(facts)
    if stalled is not None:
        conditions.append(stalled)
    elif not facts.is_ready:
        conditions.append(_reconciling(facts))
    return conditions


@dataclass(frozen=True)
class _Facts:
    """What several conditions of a track depend on."""

    decision: Decision
    failed_write: FailedWrite | None
    is_routed: bool

    @property
    def track(self) -> Track:
        return self.decision.track

    @property
    def service(self) -> InferenceService:
        return self.decision.track.service

    @property
    def wanted(self) -> str:
        return self.decision.wanted

    @property
    def rejected(self) -> Finding | None:
        """Why an object is not written, if that lasts."""
        failure = self.failed_write
        return Finding(failure.reason, failure.message) if failure is not None and failure.lasts else None

    @property
    def pending(self) -> FailedWrite | None:
        """A failed write that may pass; of a generation that has been Ready it is none."""
        failure = self.failed_write
        return failure if failure is not None and not failure.lasts and not _was_ready(self.service) else None

    @cached_property
    def finding(self) -> Finding | None:
        """Why the wanted revision does not come up."""
        track, wanted, state = self.track, self.wanted, self.decision.rollout
        sharing = self.decision.serving if state is not None and STRATEGIES[state.strategy].shares_pods else ""
        found = self.rejected or _find_unmet_admission(self.decision)
        found = found or diagnose_candidate(track, wanted, sharing)
        if not self.decision.admitted:
            found = found or warmup_failed(track, wanted) or find_refused_job(track, wanted, WARMUP)
        return found

    @property
    def has_moved(self) -> bool:
        """Whether the wanted revision carries the service."""
        return self.wanted == self.decision.serving and self.decision.admitted

    @cached_property
    def lag(self) -> Finding | None:
        """The finding for EndpointSlices that lead to another revision; the same before and after the selector's write.

        So the status is written once.
        """
        return find_endpoint_lag(self.track, self.wanted) if self.has_moved else None

    @property
    def is_complete(self) -> bool:
        """Whether the root Service has the wanted revision."""
        return self.has_moved and self.wanted == self.track.routed

    @cached_property
    def loading(self) -> Finding | None:
        """The finding for pods that have to serve the wanted revision, which all requests go to, and load it yet."""
        pods = self.track.pods_in(self.track.workload_of(self.wanted))
        changing = sum(pod.is_changing for pod in pods)
        if not self.is_complete or not changing:
            return None
        message = f"{changing} of {len(pods)} pods load revision {self.wanted}, and answer with another one until then."
        return Finding(Reason.PROGRESSING, message)

    @cached_property
    def has_replicas(self) -> bool:
        """Whether the wanted revision carries the service, has its pods, and no other answers any more."""
        is_zero = is_scaled_to_zero(self.track, self.decision.rollout, self.wanted)
        is_served = is_zero or self.track.ready(self.wanted) >= least_replicas(self.service)
        return self.is_complete and is_served and self.loading is None

    @property
    def obstacle(self) -> Finding | None:
        """Why the traffic differs from the spec, if that lasts."""
        return _find_obstacle(self.decision, _TRANSIENT | _PERHAPS_TRANSIENT) if self.has_replicas else None

    @cached_property
    def changed_content(self) -> Finding | None:
        """The finding for a store whose files differ from those that the revision was created with."""
        return find_changed_content(self.track, self.decision.serving) if self.has_replicas else None

    @property
    def is_programmed(self) -> bool:
        """Whether the traffic has the desired weights, as far as its status shows."""
        router = router_of(self.service)
        return self.is_routed and router.verify_weights(self.decision.traffic.shares, self.decision.shares)

    @cached_property
    def is_up(self) -> bool:
        """Whether the latest spec is served."""
        is_in_force = self.has_replicas and self.is_programmed and self.obstacle is None and self.lag is None
        return is_in_force and self.changed_content is None and self.rejected is None

    @property
    def is_ready(self) -> bool:
        """Whether the latest spec is served, and all its objects are written."""
        return self.is_up and self.pending is None


def _was_ready(service: InferenceService) -> bool:
    """Whether the present generation has been Ready."""
    ready = service.status.condition(_READY)
    is_observed = service.status.observed_generation == service.metadata.generation
    return is_observed and ready is not None and ready.status == "True"


def _find_unmet_admission(decision: Decision) -> Finding | None:
    """Return why the candidate has no pods yet: GPUs or the signature policy.

    It is not Stalled: it goes on by itself, so kstatus and Argo CD show it in progress, with Ready False and the
    reason, and `kubectl wait` waits.
    """
    state = decision.rollout
    if state is None or state.has_failed or state.reason not in _UNMET:
        return None
    return Finding(state.reason, state.message)


def _late(finding: Finding | None) -> Finding:
    message = finding.message if finding else "The revision did not become ready in time."
    return Finding(Reason.PROGRESS_DEADLINE_EXCEEDED, message)


def _find_failure(decision: Decision) -> Finding | None:
    """Return why the wanted revision was rolled back, and what a user can do."""
    state = decision.rollout
    if state is None or not state.has_failed:
        return None
    pods = decision.track.pods_in(decision.track.workload_of(decision.serving))
    serves = "is loaded again" if any(pod.is_in_place for pod in pods) else "serves on"
    return Finding(
        state.reason,
        f"Revision {state.revision} failed and {decision.serving} {serves}: {state.message}"
        " Not retried until spec.predictor changes. To retry now: kubectl conch retry.",
    )


def _ready(facts: _Facts) -> PendingCondition:
    """Whether the latest spec is served."""
    decision = facts.decision
    if facts.is_up:
        return _served(facts)
    why = _find_failure(decision) or facts.finding or facts.obstacle
    if why is not None:
        return PendingCondition(_READY, "False", why.reason, why.message)
    if (wait := facts.loading or facts.lag) is not None:
        return PendingCondition(_READY, "Unknown", wait.reason, wait.message)
    if decision.overdue:
        message = f"Revision {facts.wanted} is not ready in time."
        return PendingCondition(_READY, "False", Reason.PROGRESS_DEADLINE_EXCEEDED, message)
    if decision.rollout is not None:
        return PendingCondition(_READY, "Unknown", decision.rollout.phase.value, decision.rollout.message)
    reason = Reason.WAKING_UP if is_waking_up(facts.track, decision.rollout, facts.wanted) else Reason.PROGRESSING
    phase = phase_of(facts.track, facts.wanted)
    return PendingCondition(_READY, "Unknown", reason, f"Revision {facts.wanted} is coming up: {phase.value}.")


def _served(facts: _Facts) -> PendingCondition:
    """Return the condition of a service whose latest spec is served."""
    wanted = facts.wanted
    if facts.pending is not None:
        return PendingCondition(_READY, "Unknown", Reason.PROGRESSING, facts.pending.message)
    if is_scaled_to_zero(facts.track, facts.decision.rollout, wanted):
        return PendingCondition(_READY, "True", Reason.SCALED_TO_ZERO, f"Revision {wanted} is scaled to zero: {_WAKES}")
    message = _with_failing_requests(facts.service, f"Revision {wanted} serves the latest spec.", [wanted])
    return PendingCondition(_READY, "True", Reason.SERVED, message)


def _with_failing_requests(service: InferenceService, message: str, revisions: Sequence[str]) -> str:
    """Return the message, and why some requests to these revisions fail, if a model of theirs warns of it."""
    found = (find_failing_requests(service.status, name) for name in revisions)
    failing = next(filter(None, found), "")
    return f"{message} Some requests fail: {failing}" if failing else message


def _serving(facts: _Facts) -> PendingCondition:
    """Whether users get answers, from whatever revision."""
    track, state = facts.track, facts.decision.rollout
    # The revisions that the traffic shows; while nothing shows it, the one of the root Service.
    reached = sorted(facts.decision.traffic.observed_weights) or [track.routed or ""]
    answering = [name for name in reached if track.ready(name)] or _list_answering_in_place(facts)
    if answering:
        message = f"Requests go to revision {' and '.join(answering)}."
        return PendingCondition(
            _SERVING, "True", Reason.ANSWERING, _with_failing_requests(facts.service, message, answering)
        )
    if any(is_scaled_to_zero(track, state, name) for name in reached):
        return PendingCondition(_SERVING, "True", Reason.SCALED_TO_ZERO, f"There is no pod: {_WAKES}")
    before = facts.service.status.condition(_SERVING)
    if facts.finding is None and any(is_waking_up(track, state, name) for name in reached):
        return PendingCondition(_SERVING, "Unknown", Reason.WAKING_UP, "A trigger is active, and a pod starts.")
    if before is None or (before.status == "Unknown" and before.reason != Reason.WAKING_UP):
        return PendingCondition(_SERVING, "Unknown", Reason.PENDING, "No pod has been ready yet.")
    message = facts.finding.message if facts.finding else "No pod is ready."
    return PendingCondition(_SERVING, "False", Reason.NO_READY_PODS, message)


def _list_answering_in_place(facts: _Facts) -> list[str]:
    """Return the revisions of ready pods that get the requests to all revisions of their workload."""
    workloads = {workload.name for workload in facts.decision.workloads if workload.is_in_place}
    return sorted({pod.serves for pod in facts.track.pods if pod.workload in workloads and pod.answers})


def _rollout_complete(facts: _Facts) -> PendingCondition:
    """Whether the wanted revision is the one that serves."""
    decision, wanted = facts.decision, facts.wanted
    before = facts.service.status.condition(_COMPLETE)
    was_complete = before is not None and before.status == "True" and facts.service.status.stable == wanted
    has_taken_over = not (facts.loading or facts.lag) and facts.track.ready(wanted) >= decision.needed
    if facts.is_complete and (was_complete or has_taken_over):
        return PendingCondition(_COMPLETE, "True", Reason.COMPLETE, f"Revision {wanted} serves.")
    why = _find_failure(decision) or facts.loading or facts.lag
    if why is not None:
        return PendingCondition(_COMPLETE, "False", why.reason, why.message)
    if decision.overdue:
        late = _late(facts.finding)
        return PendingCondition(_COMPLETE, "False", late.reason, f"Revision {wanted}: {late.message}")
    if decision.rollout is not None:
        return PendingCondition(_COMPLETE, "False", decision.rollout.phase.value, decision.rollout.message)
    message = f"Revision {wanted} takes over when {decision.needed} of its pods are ready."
    return PendingCondition(_COMPLETE, "False", Reason.PROGRESSING, message)


def _traffic_programmed(facts: _Facts) -> PendingCondition:
    """Whether the network has the desired weights."""
    traffic, obstacle = facts.decision.traffic, _find_obstacle(facts.decision, _TRANSIENT)
    if obstacle is not None:
        return PendingCondition(_TRAFFIC, "False", obstacle.reason, obstacle.message)
    if not facts.is_programmed:
        wait = traffic.obstacle or facts.lag
        message = wait.message if wait else "The traffic does not have the last change yet."
        return PendingCondition(_TRAFFIC, "Unknown", Reason.PENDING, message)
    if traffic.uncertainty is not None:
        return PendingCondition(_TRAFFIC, "Unknown", traffic.uncertainty.reason, traffic.uncertainty.message)
    return PendingCondition(_TRAFFIC, "True", Reason.PROGRAMMED, "Requests are split by the desired weights.")


def _stalled(facts: _Facts) -> PendingCondition | None:
    """Return the condition Stalled of a track that goes on only after a change by a user; None: it goes on."""
    decision, failure = facts.decision, facts.failed_write
    why = facts.rejected if failure is not None and failure.final else None
    is_late = decision.overdue and not (facts.loading or facts.lag or facts.is_ready)
    if why is None and (decision.failed or is_late):
        why = _find_failure(decision) or _find_stuck(facts) or _late(facts.finding)
    why = why or _find_stuck(facts)
    return PendingCondition(ConditionType.STALLED, "True", why.reason, why.message) if why else None


def _find_stuck(facts: _Facts) -> Finding | None:
    return (facts.decision.traffic.unsupported or facts.changed_content) if facts.has_replicas else None


def _reconciling(facts: _Facts) -> PendingCondition:
    wait = facts.rejected or facts.loading or facts.lag or facts.decision.rollout or facts.obstacle or facts.pending
    message = wait.message if wait else f"Revision {facts.wanted} is coming up."
    return PendingCondition(ConditionType.RECONCILING, "True", Reason.PROGRESSING, message)


# Conditions of the service that depend on variants too, and the statuses of them that a variant's replaces.
_OF_ALL: Final[dict[ConditionType, frozenset[Truth]]] = {
    ConditionType.READY: frozenset({"True"}),
    ConditionType.TRAFFIC_PROGRAMMED: frozenset({"True"}),
    ConditionType.SOURCE_UP_TO_DATE: frozenset({"True"}),
    ConditionType.SIGNATURE_POLICY: frozenset({"True"}),
    ConditionType.RECONCILING: frozenset(),
    ConditionType.STALLED: frozenset(),
}


def merge_conditions(by_variant: Mapping[str, Sequence[PendingCondition]]) -> list[PendingCondition]:
    """Return the service's conditions: the predictor's, and where these are good or missing, those of a variant.

    Args:
        by_variant: the conditions of the predictor (""), and of each variant in the spec's order.
    """
    found = {condition.type: condition for condition in by_variant[""]}
    for variant, own in by_variant.items():
        for condition in own if variant else ():
            good = _OF_ALL.get(condition.type)
            known = found.get(condition.type)
            if good is None or (known is not None and (condition.status in good or known.status not in good)):
                continue
            found[condition.type] = replace(condition, message=f"{OF_VARIANT}{variant}: {condition.message}")
    return list(found.values())


def _find_obstacle(decision: Decision, transient: frozenset[str]) -> Finding | None:
    """Return why the traffic differs from the spec, but for reasons that pass by themselves."""
    obstacle = decision.traffic.obstacle
    return obstacle if obstacle is not None and obstacle.reason not in transient else decision.traffic.unsupported
