"""What is told: the status, as a function of the world, the decision and what stood in the way.

Conditions are positive, speak of this very generation, and change their time only with their value.
Nothing that flickers (bytes, percentages) enters: each status write carries a change that a user can see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from conch.api import (
    Condition,
    ConditionType,
    ModelStatus,
    Phase,
    ReplicaStatus,
    RevisionStatus,
    RolloutStatus,
    ServedModel,
    Status,
    VariantStatus,
)
from conch.decide.network import PASSING, PERHAPS, hindered, programmed
from conch.decide.rollout import Decision, Living, floor_of
from conch.decide.service import Decisions
from conch.decide.times import format_time
from conch.decide.trouble import trouble
from conch.decide.warm import warmed, warmup_failed
from conch.observe import Trouble, Unreadable, World
from conch.traffic import written
from conch_contract import ModelReport, ModelState, names

Truth = Literal["True", "False", "Unknown"]

_ORDER = (
    ModelState.FAILED,
    ModelState.PENDING,
    ModelState.FETCHING,
    ModelState.LOADING,
    ModelState.WARMING,
    ModelState.READY,
)


@dataclass(frozen=True)
class Verdict:
    """A condition without its clock."""

    type: ConditionType
    status: Truth
    reason: str
    message: str


def tell(world: World, decisions: Decisions, refused: Trouble | None) -> Status:
    """Return the status that the service should have.

    Args:
        world: what is.
        decisions: what shall be.
        refused: what the API server would not have, if anything.
    """
    routed = written(world, decisions.ways)
    tracks = tuple(zip(world.tracks, decisions.tracks, strict=True))
    verdicts = [_verdicts(track, decision, refused, routed=routed) for track, decision in tracks]
    revisions = [tuple(_revision(track, decision, one) for one in decision.living) for track, decision in tracks]
    every = tuple(revision for own in revisions for revision in own)
    variants = [track.service.variant for track, _ in tracks]
    main = _fields(*tracks[0], _for_all(variants, verdicts))
    return Status(
        **{**main, "ready": _ready_pods(every)},
        observed_generation=world.service.metadata.generation,
        model=ServedModel(name=world.service.model_name),
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


def _fields(world: World, decision: Decision, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return what is told alike of the predictor and of a variant."""
    service, moment = world.service, format_time(world.now)
    return {
        "conditions": tuple(_stamped(service.status, found, service.metadata.generation, moment) for found in verdicts),
        "url": f"http://{service.track}.{service.metadata.namespace}.svc:{names.HTTP_PORT}",
        "stable": decision.serving if decision.admitted else None,
        "candidate": decision.candidate,
        "weight": decision.shares.get(decision.candidate, 0) if decision.candidate else None,
        "rollout": decision.rollout if decision.wanted != decision.serving else None,
    }


def _ready_pods(revisions: Sequence[RevisionStatus]) -> str:
    return f"{sum(r.replicas.ready for r in revisions)}/{sum(r.replicas.wanted for r in revisions)}"


# What the service's own condition says of variants too, and the truths of it that give way to a variant's.
_OF_ALL: Final[dict[ConditionType, frozenset[Truth]]] = {
    ConditionType.READY: frozenset({"True"}),
    ConditionType.TRAFFIC_PROGRAMMED: frozenset({"True"}),
    ConditionType.RECONCILING: frozenset(),
    ConditionType.STALLED: frozenset(),
}


def _for_all(variants: Sequence[str], verdicts: Sequence[Sequence[Verdict]]) -> list[Verdict]:
    """Return the service's conditions: the predictor's, and where that has nothing to complain of, a variant's."""
    found = {verdict.type: verdict for verdict in verdicts[0]}
    for variant, own in zip(variants[1:], verdicts[1:], strict=True):
        for verdict in own:
            good = _OF_ALL.get(verdict.type)
            known = found.get(verdict.type)
            if good is None or verdict.status in good or (known is not None and known.status not in good):
                continue
            found[verdict.type] = replace(verdict, message=f"Variant {variant}: {verdict.message}")
    return list(found.values())


def tell_unreadable(service: Unreadable, now: float) -> Status:
    """Return the status of a service that cannot be read: what served goes on serving, and is told as before."""
    before = Status.lenient(service.status)
    verdicts = (
        Verdict(ConditionType.READY, "False", "SpecUnreadable", service.message),
        Verdict(ConditionType.STALLED, "True", "SpecUnreadable", service.message),
    )
    told = {verdict.type for verdict in verdicts} | {ConditionType.RECONCILING}
    stamped = tuple(_stamped(before, v, service.generation, format_time(now)) for v in verdicts)
    kept = tuple(condition for condition in before.conditions if condition.type not in told)
    changes = {"observed_generation": service.generation, "conditions": (*stamped, *kept)}
    return before.model_copy(update=changes)


def _verdicts(world: World, decision: Decision, refused: Trouble | None, *, routed: bool) -> list[Verdict]:
    """All conditions that the predictor, or a variant, has at this moment."""
    found = refused or trouble(world, decision.wanted)
    if not decision.admitted:
        found = found or warmup_failed(world, decision.wanted)
    done = decision.wanted == decision.serving == world.routed and decision.admitted
    there = done and world.ready(decision.wanted) >= floor_of(world.service)
    hinders = hindered(decision, PASSING | PERHAPS) if there else None
    up = there and programmed(world, decision, routed=routed) and hinders is None
    verdicts = [
        _ready(world, decision, found or hinders, up=up and refused is None),
        _serving(world, decision, found),
        _complete(world, decision, found, done=done),
    ]
    if world.service.spec.predictor.scales:
        verdicts.append(_autoscaling(world, decision.serving))
    if world.service.spec.traffic is not None:
        verdicts.append(_traffic(world, decision, routed=routed))
    stuck = decision.in_force.unsupported if there else None
    if refused is not None or decision.overdue or decision.failed or stuck is not None:
        why = refused or (_failure(decision) if decision.failed else stuck or _late(found))
        verdicts.append(Verdict(ConditionType.STALLED, "True", why.reason, why.message))
    elif not up:
        waits = decision.rollout or hinders
        told = waits.message if waits else f"Revision {decision.wanted} is coming up."
        verdicts.append(Verdict(ConditionType.RECONCILING, "True", "Progressing", told))
    return verdicts


def _late(found: Trouble | None) -> Trouble:
    return Trouble("ProgressDeadlineExceeded", found.message if found else "The revision did not become ready in time.")


def _failure(decision: Decision) -> Trouble:
    """Why the revision that the spec asks for does not serve, and what a person can do."""
    memory = decision.rollout or RolloutStatus(revision=decision.wanted)
    return Trouble(
        memory.reason,
        f"Revision {memory.revision} failed and {decision.serving} serves on: {memory.message}"
        " It stays so until the predictor changes; kubectl conch retry tries it again.",
    )


def _ready(world: World, decision: Decision, found: Trouble | None, *, up: bool) -> Verdict:
    """Whether the latest spec is served as asked."""
    kind = ConditionType.READY
    if up:
        return Verdict(kind, "True", "Served", f"Revision {decision.wanted} serves as asked.")
    if decision.failed:
        why = _failure(decision)
        return Verdict(kind, "False", why.reason, why.message)
    if found is not None:
        return Verdict(kind, "False", found.reason, found.message)
    if decision.overdue:
        return Verdict(kind, "False", "ProgressDeadlineExceeded", f"Revision {decision.wanted} is not ready in time.")
    if decision.rollout is not None:
        return Verdict(kind, "Unknown", decision.rollout.state, decision.rollout.message)
    phase = _phase(world, decision.wanted)
    return Verdict(kind, "Unknown", "Progressing", f"Revision {decision.wanted} is coming up: {phase.value}.")


def _serving(world: World, decision: Decision, found: Trouble | None) -> Verdict:
    """Whether users get answers, from whatever revision."""
    kind = ConditionType.SERVING
    # What the traffic shows; while nobody can tell, the revision that carries the service speaks for it.
    reached = sorted(decision.in_force.achieved) or [world.routed or ""]
    answering = [name for name in reached if world.ready(name)]
    if answering:
        return Verdict(kind, "True", "Answering", f"Requests go to revision {' and '.join(answering)}.")
    before = world.service.status.condition(kind)
    if before is None or before.status == "Unknown":
        return Verdict(kind, "Unknown", "Pending", "No pod has been ready yet.")
    return Verdict(kind, "False", "NoReadyPods", found.message if found else "No pod is ready.")


def _complete(world: World, decision: Decision, found: Trouble | None, *, done: bool) -> Verdict:
    """Whether the revision that the spec asks for is the one that serves."""
    kind = ConditionType.ROLLOUT_COMPLETE
    before = world.service.status.condition(kind)
    once = before is not None and before.status == "True" and world.service.status.stable == decision.wanted
    if done and (once or world.ready(decision.wanted) >= decision.needed):
        return Verdict(kind, "True", "Complete", f"Revision {decision.wanted} serves.")
    if decision.failed:
        why = _failure(decision)
        return Verdict(kind, "False", why.reason, why.message)
    if decision.overdue:
        why = _late(found)
        return Verdict(kind, "False", why.reason, f"Revision {decision.wanted}: {why.message}")
    if decision.rollout is not None:
        return Verdict(kind, "False", decision.rollout.state, decision.rollout.message)
    told = f"Revision {decision.wanted} takes over when {decision.needed} of its pods are ready."
    return Verdict(kind, "False", "Progressing", told)


def _traffic(world: World, decision: Decision, *, routed: bool) -> Verdict:
    """Whether what shares requests out has taken up what it was told; `routed`: the route says it."""
    kind = ConditionType.TRAFFIC_PROGRAMMED
    hinders = hindered(decision, PASSING)
    if hinders is not None:
        return Verdict(kind, "False", hinders.reason, hinders.message)
    if programmed(world, decision, routed=routed):
        return Verdict(kind, "True", "Programmed", "Requests are shared out as asked.")
    trouble = decision.in_force.trouble
    told = trouble.message if trouble else "The traffic has not followed the last change yet."
    return Verdict(kind, "Unknown", "Pending", told)


def _autoscaling(world: World, serving: str) -> Verdict:
    """What the HorizontalPodAutoscaler says of itself."""
    kind = ConditionType.AUTOSCALING
    autoscaler = world.autoscaler(serving) or {}
    for condition in (autoscaler.get("status") or {}).get("conditions") or ():
        if condition["type"] == "ScalingActive":
            truth: Truth = "True" if condition["status"] == "True" else "False"
            # The message of a healthy HPA names numbers that change all the time; its reason does.
            told = "The autoscaler follows its metrics." if truth == "True" else condition.get("message", "")
            return Verdict(kind, truth, condition.get("reason", "Scaling"), told)
    return Verdict(kind, "Unknown", "Pending", "The autoscaler has not looked yet.")


def _revision(world: World, decision: Decision, living: Living) -> RevisionStatus:
    name = living.name
    before = world.service.status.revision(name)
    stored = world.revisions.get(name)
    phase = _phase(world, name)
    since = before.since if before is not None and before.phase == phase else format_time(world.now)
    number = decision.number if name == decision.wanted else (stored.number if stored else 0)
    return RevisionStatus(
        name=name,
        variant=world.service.variant or None,
        number=number,
        generation=stored.generation if stored else world.service.metadata.generation,
        phase=phase,
        weight=decision.shares.get(name, 0),
        replicas=ReplicaStatus(ready=world.ready(name), wanted=world.replicas(name) or living.floor),
        models=_models(world, name),
        warmup=warmed(world, name),
        since=since,
    )


def _phase(world: World, name: str) -> Phase:
    """The least advanced model of the most advanced pod; a pod that is up outweighs one that starts."""
    if world.ready(name) > 0:
        return Phase.READY
    if trouble(world, name) is not None:
        return Phase.FAILED
    states = [model.state for pod in world.pods_of(name) if pod.report for model in pod.report.models]
    return Phase(max(states, key=_ORDER.index).value) if states else Phase.PENDING


def _models(world: World, name: str) -> tuple[ModelStatus, ...]:
    """What pods told of their models, the least advanced first; what was told before, when none was asked now."""
    told: dict[str, ModelReport] = {}
    for pod in world.pods_of(name):
        for model in pod.report.models if pod.report else ():
            known = told.get(model.name)
            if known is None or _ORDER.index(model.state) < _ORDER.index(known.state):
                told[model.name] = model
    if not told:
        before = world.service.status.revision(name)
        return before.models if before else ()
    return tuple(
        ModelStatus(
            name=model.name,
            versions=tuple(v.version for v in model.versions if v.state is ModelState.READY),
            state=model.state.value,
            reason=model.reason,
            message=model.message,
            digest=model.digest,
        )
        for model in told.values()
    )


def _stamped(before: Status, verdict: Verdict, generation: int, moment: str) -> Condition:
    """Give a verdict its clock: the moment when its value last changed."""
    known = before.condition(verdict.type)
    since = known.last_transition_time if known is not None and known.status == verdict.status else moment
    return Condition(
        type=verdict.type,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message[:4096],
        last_transition_time=since,
        observed_generation=generation,
    )
