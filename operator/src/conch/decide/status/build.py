"""The status, as a function of the snapshot, the decisions and the failed writes.

It has nothing that changes all the time (bytes, percentages): each status write carries a change that users can see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conch.api import Condition, ConditionType, RevisionStatus, ServedModel, Status, VariantStatus
from conch.api.times import format_time
from conch.decide.rollout import build_request_status
from conch.decide.service import Decisions
from conch.decide.status.condition import FailedWrite, PendingCondition
from conch.decide.status.conditions import build_conditions, merge_conditions
from conch.decide.status.revisions import build_revision_status
from conch.decide.status.signatures import build_signature_condition
from conch.decide.track import Decision
from conch.observe import Snapshot, Unreadable
from conch.traffic import is_written
from conch_contract import names


def build_status(snapshot: Snapshot, decisions: Decisions, failed_writes: Mapping[str, FailedWrite]) -> Status:
    """Return the status that the service should have.

    Args:
        snapshot: of the service.
        decisions: for the service.
        failed_writes: why objects of the predictor ("") or of a variant are not written.
    """
    is_routed = is_written(snapshot, decisions.track_routes)
    tracks = [_build_track_status(decision, failed_writes, is_routed=is_routed) for decision in decisions.tracks]
    conditions = merge_conditions({track.variant: track.conditions for track in tracks})
    revisions = tuple(revision for track in tracks for revision in track.revisions)
    return Status(
        **{**_fields(decisions.main, conditions), "ready": _count_ready_pods(revisions)},
        observed_generation=snapshot.service.metadata.generation,
        model=ServedModel(name=snapshot.service.model_name),
        revisions=revisions,
        variants=tuple(
            VariantStatus(
                name=track.variant,
                ready=_count_ready_pods(track.revisions),
                mirror=decisions.mirrors.get(track.variant),
                **_fields(track.decision, track.conditions),
            )
            for track in tracks[1:]
        ),
    )


@dataclass(frozen=True)
class _TrackStatus:
    """The status of one track."""

    decision: Decision
    conditions: Sequence[PendingCondition]
    revisions: tuple[RevisionStatus, ...]

    @property
    def variant(self) -> str:
        """The name of the variant; empty: the predictor."""
        return self.decision.track.service.variant


def _build_track_status(
    decision: Decision, failed_writes: Mapping[str, FailedWrite], *, is_routed: bool
) -> _TrackStatus:
    failed_write, policy = failed_writes.get(decision.track.service.variant), decision.track.signature_policy
    conditions = build_conditions(decision, failed_write, is_routed=is_routed)
    revisions = tuple(
        build_revision_status(decision, workload, name)
        for workload in decision.workloads
        for name in workload.revisions
    )
    if policy is not None:
        conditions = [*conditions, build_signature_condition(policy, revisions)]
    return _TrackStatus(decision, conditions, revisions)


def _fields(decision: Decision, conditions: Sequence[PendingCondition]) -> dict[str, Any]:
    """Return the fields that the predictor and a variant have in common."""
    service, moment = decision.track.service, format_time(decision.track.now)
    generation = service.metadata.generation
    state = decision.rollout if decision.wanted != decision.serving else None
    return {
        "conditions": tuple(_stamp(service.status, condition, generation, moment) for condition in conditions),
        "url": f"http://{service.track}.{service.metadata.namespace}.svc:{names.HTTP_PORT}",
        "stable": decision.serving if decision.admitted else None,
        "candidate": decision.candidate,
        "weight": decision.shares.get(decision.candidate, 0) if decision.candidate else None,
        "rollout": state.to_status() if state is not None else None,
        "request": build_request_status(service, decision.rollout, decision.wanted),
    }


def _count_ready_pods(revisions: Sequence[RevisionStatus]) -> str:
    return f"{sum(r.replicas.ready for r in revisions)}/{sum(r.replicas.desired for r in revisions)}"


def build_unreadable_status(service: Unreadable, now: float) -> Status:
    """Return the status of a service that cannot be read: what served goes on serving, and keeps its status."""
    return build_stalled_status(
        Status.lenient(service.status), service.generation, service.reason, service.message, now
    )


def build_stalled_status(before: Status, generation: int, reason: str, message: str, now: float) -> Status:
    """Return the status of a service that is not reconciled, with the reason.

    Args:
        before: the status that it has.
        generation: of its spec.
        reason: in one CamelCase word.
        message: the sentence that the user reads.
        now: seconds since the epoch.
    """
    conditions = (
        PendingCondition(ConditionType.READY, "False", reason, message),
        PendingCondition(ConditionType.STALLED, "True", reason, message),
    )
    replaced = {condition.type for condition in conditions} | {ConditionType.RECONCILING}
    stamped = tuple(_stamp(before, condition, generation, format_time(now)) for condition in conditions)
    kept = tuple(condition for condition in before.conditions if condition.type not in replaced)
    return before.model_copy(update={"observed_generation": generation, "conditions": (*stamped, *kept)})


def _stamp(before: Status, condition: PendingCondition, generation: int, moment: str) -> Condition:
    """Return a condition with its lastTransitionTime."""
    known = before.condition(condition.type)
    since = known.last_transition_time if known is not None and known.status == condition.status else moment
    return Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_transition_time=since,
        observed_generation=generation,
    )
