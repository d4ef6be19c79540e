"""What is told: the status, as a function of the snapshot, the decision and what stood in the way.

Nothing that flickers (bytes, percentages) enters: each status write carries a change that a user can see.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from conch.api import Condition, ConditionType, RevisionStatus, ServedModel, Status, VariantStatus
from conch.api.times import format_time
from conch.decide.conditions import for_all, verdicts_of
from conch.decide.request import build_request_status
from conch.decide.revisions import revision_status
from conch.decide.rollout import Decision
from conch.decide.service import Decisions
from conch.decide.verdict import Unwritten, Verdict
from conch.observe import Snapshot, Unreadable
from conch.traffic import is_written
from conch_contract import names


def build_status(snapshot: Snapshot, decisions: Decisions, unwritten: Mapping[str, Unwritten]) -> Status:
    """Return the status that the service should have.

    Args:
        snapshot: what is.
        decisions: what shall be.
        unwritten: why objects of the predictor ("") or of a variant are not written.
    """
    routed = is_written(snapshot, decisions.ways)
    tracks = tuple(zip(snapshot.tracks, decisions.tracks, strict=True))
    verdicts = [
        verdicts_of(track, decision, unwritten.get(track.service.variant), routed=routed) for track, decision in tracks
    ]
    revisions = [tuple(revision_status(track, decision, one) for one in decision.living) for track, decision in tracks]
    every = tuple(revision for own in revisions for revision in own)
    variants = [track.service.variant for track, _ in tracks]
    main = _fields(*tracks[0], for_all(variants, verdicts))
    return Status(
        **{**main, "ready": _ready_pods(every)},
        observed_generation=snapshot.service.metadata.generation,
        model=ServedModel(name=snapshot.service.model_name),
        revisions=every,
        variants=tuple(
            VariantStatus(
                name=track.service.variant,
                ready=_ready_pods(own),
                mirror=decisions.mirrors.get(track.service.variant),
                **_fields(track, decision, found),
            )
            for (track, decision), own, found in list(zip(tracks, revisions, verdicts, strict=True))[1:]
        ),
    )


def _fields(snapshot: Snapshot, decision: Decision, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return what is told alike of the predictor and of a variant."""
    service, moment = snapshot.service, format_time(snapshot.now)
    return {
        "conditions": tuple(_stamped(service.status, found, service.metadata.generation, moment) for found in verdicts),
        "url": f"http://{service.track}.{service.metadata.namespace}.svc:{names.HTTP_PORT}",
        "stable": decision.serving if decision.admitted else None,
        "candidate": decision.candidate,
        "weight": decision.shares.get(decision.candidate, 0) if decision.candidate else None,
        "rollout": decision.rollout if decision.wanted != decision.serving else None,
        "request": build_request_status(service, decision.rollout),
    }


def _ready_pods(revisions: Sequence[RevisionStatus]) -> str:
    return f"{sum(r.replicas.ready for r in revisions)}/{sum(r.replicas.wanted for r in revisions)}"


def build_unreadable_status(service: Unreadable, now: float) -> Status:
    """Return the status of a service that cannot be read: what served goes on serving, and is told as before."""
    return stalled(Status.lenient(service.status), service.generation, service.reason, service.message, now)


def stalled(before: Status, generation: int, reason: str, message: str, now: float) -> Status:
    """Return the status of a service of which nothing new is known but that it is not reconciled, and why.

    Args:
        before: the status that it has.
        generation: of its spec.
        reason: in one CamelCase word.
        message: the sentence that the user reads.
        now: seconds since the epoch.
    """
    verdicts = (
        Verdict(ConditionType.READY, "False", reason, message),
        Verdict(ConditionType.STALLED, "True", reason, message),
    )
    told = {verdict.type for verdict in verdicts} | {ConditionType.RECONCILING}
    stamped = tuple(_stamped(before, v, generation, format_time(now)) for v in verdicts)
    kept = tuple(condition for condition in before.conditions if condition.type not in told)
    return before.model_copy(update={"observed_generation": generation, "conditions": (*stamped, *kept)})


def _stamped(before: Status, verdict: Verdict, generation: int, moment: str) -> Condition:
    """Give a verdict its clock: the moment when its value last changed."""
    known = before.condition(verdict.type)
    since = known.last_transition_time if known is not None and known.status == verdict.status else moment
    return Condition(
        type=verdict.type,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message,
        last_transition_time=since,
        observed_generation=generation,
    )
