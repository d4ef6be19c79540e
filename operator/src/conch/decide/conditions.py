"""The conditions: what is so, and why not, of the predictor or a variant, and of the service as a whole.

They are positive, and change their time only with their value; the clock is the status's (`decide/status.py`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from conch.api import ConditionType, RolloutStatus
from conch.decide.diagnosis import diagnose, find_changed_content, find_unlisted_pod
from conch.decide.replicas import floor_of
from conch.decide.revisions import find_failing_requests, phase_of
from conch.decide.rollout import Decision
from conch.decide.scale_to_zero import NOT_YET, asleep, wakes_up
from conch.decide.scaling import autoscaling
from conch.decide.verdict import Truth, Unwritten, Verdict
from conch.decide.waits import INSUFFICIENT_GPU
from conch.decide.warm import find_refused_job, warmup_failed
from conch.observe import Finding, Snapshot
from conch.traffic import find_endpoint_lag, router_of

ASLEEP: Final = "ScaledToZero"
WAKING: Final = "WakingUp"
_WAKES: Final = "KEDA starts a pod when a trigger is active."

# What every change of a route brings with it for a moment.
_PASSING: Final = frozenset({"RouteMissing", "GatewayPending"})
# What the first write of a route brings with it too; only time tells whether it is more.
_PERHAPS: Final = frozenset({"GatewayNotResponding"})


def verdicts_of(snapshot: Snapshot, decision: Decision, unwritten: Unwritten | None, *, routed: bool) -> list[Verdict]:
    """All conditions that the predictor, or a variant, has at this moment."""
    refused = Finding(unwritten.reason, unwritten.message) if unwritten is not None and unwritten.lasts else None
    found = (
        refused
        or _held(decision)
        or diagnose(snapshot, decision.wanted)
        or find_unlisted_pod(snapshot, decision.wanted)
    )
    if not decision.admitted:
        found = (
            found
            or warmup_failed(snapshot, decision.wanted)
            or find_refused_job(snapshot, decision.wanted, parity=False)
        )
    moved = decision.wanted == decision.serving and decision.admitted
    # The same before and after the write of the selector, so that the status is written once.
    lag = find_endpoint_lag(snapshot, decision.wanted) if moved else None
    done = moved and decision.wanted == snapshot.routed
    sleeps = asleep(snapshot, decision.rollout, decision.wanted)
    there = done and (sleeps or snapshot.ready(decision.wanted) >= floor_of(snapshot.service))
    hinders = _hindered(decision, _PASSING | _PERHAPS) if there else None
    changed = find_changed_content(snapshot, decision.serving) if there else None
    in_force = there and _programmed(snapshot, decision, routed=routed) and hinders is None and lag is None
    up = in_force and changed is None and refused is None
    pending = unwritten if unwritten is not None and not unwritten.lasts and not _was_ready(snapshot) else None
    ready = _ready(snapshot, decision, found or hinders, lag, up=up)
    if up and pending is not None:
        up, ready = False, Verdict(ConditionType.READY, "Unknown", "Progressing", pending.message)
    verdicts = [
        ready,
        _serving(snapshot, decision, found),
        _complete(snapshot, decision, found, lag, done=done),
    ]
    if snapshot.service.spec.predictor.scales:
        verdicts.append(autoscaling(snapshot, decision.serving))
    if snapshot.service.spec.traffic is not None:
        verdicts.append(_traffic(snapshot, decision, lag, routed=routed))
    stuck = (decision.in_force.unsupported or changed) if there else None
    stalls = refused if unwritten is not None and unwritten.final else None
    overdue = decision.overdue and lag is None and not up
    if stalls is not None or overdue or decision.failed or stuck is not None:
        why = stalls or (_failure(decision) if decision.failed else stuck or _late(found))
        verdicts.append(Verdict(ConditionType.STALLED, "True", why.reason, why.message))
    elif not up:
        waits = refused or lag or decision.rollout or hinders or pending
        told = waits.message if waits else f"Revision {decision.wanted} is coming up."
        verdicts.append(Verdict(ConditionType.RECONCILING, "True", "Progressing", told))
    return verdicts


def _was_ready(snapshot: Snapshot) -> bool:
    """Whether the present generation has been served as asked."""
    ready = snapshot.service.status.condition(ConditionType.READY)
    seen = snapshot.service.status.observed_generation == snapshot.service.metadata.generation
    return seen and ready is not None and ready.status == "True"


def _held(decision: Decision) -> Finding | None:
    """Why the candidate has no pods yet.

    It is not Stalled: it goes on by itself, so kstatus and Argo CD shall see it in progress, with Ready False and the
    reason, and `kubectl wait` shall wait.
    """
    memory = decision.rollout
    held = memory is not None and memory.reason == INSUFFICIENT_GPU and not decision.failed
    return Finding(memory.reason, memory.message) if memory is not None and held else None


def _late(found: Finding | None) -> Finding:
    return Finding("ProgressDeadlineExceeded", found.message if found else "The revision did not become ready in time.")


def _failure(decision: Decision) -> Finding:
    """Why the revision that the spec asks for does not serve, and what a person can do."""
    memory = decision.rollout or RolloutStatus(revision=decision.wanted)
    return Finding(
        memory.reason,
        f"Revision {memory.revision} failed and {decision.serving} serves on: {memory.message}"
        " It stays so until the predictor changes; kubectl conch retry tries it again.",
    )


def _ready(snapshot: Snapshot, decision: Decision, found: Finding | None, lag: Finding | None, *, up: bool) -> Verdict:
    """Whether the latest spec is served as asked."""
    kind = ConditionType.READY
    if up:
        return Verdict(kind, "True", *_as_asked(snapshot, decision))
    why = _failure(decision) if decision.failed else found
    if why is not None:
        return Verdict(kind, "False", why.reason, why.message)
    if lag is not None:
        return Verdict(kind, "Unknown", lag.reason, lag.message)
    if decision.overdue:
        return Verdict(kind, "False", "ProgressDeadlineExceeded", f"Revision {decision.wanted} is not ready in time.")
    if decision.rollout is not None:
        return Verdict(kind, "Unknown", decision.rollout.phase, decision.rollout.message)
    reason = WAKING if wakes_up(snapshot, decision.rollout, decision.wanted) else "Progressing"
    phase = phase_of(snapshot, decision.wanted)
    return Verdict(kind, "Unknown", reason, f"Revision {decision.wanted} is coming up: {phase.value}.")


def _as_asked(snapshot: Snapshot, decision: Decision) -> tuple[str, str]:
    """The reason and the sentence of a service that is Ready."""
    if asleep(snapshot, decision.rollout, decision.wanted):
        return ASLEEP, f"Revision {decision.wanted} sleeps as asked: {_WAKES}"
    return "Served", _with_failing_requests(snapshot, f"Revision {decision.wanted} serves as asked.", [decision.wanted])


def _with_failing_requests(snapshot: Snapshot, message: str, revisions: Sequence[str]) -> str:
    """Return the message, and why some requests to these revisions fail, if a model of theirs warns of it."""
    found = (find_failing_requests(snapshot.service.status, name) for name in revisions)
    failing = next(filter(None, found), "")
    return f"{message} Some requests fail: {failing}" if failing else message


def _serving(snapshot: Snapshot, decision: Decision, found: Finding | None) -> Verdict:
    """Whether users get answers, from whatever revision."""
    kind = ConditionType.SERVING
    # What the traffic shows; while nobody can tell, the revision that carries the service speaks for it.
    reached = sorted(decision.in_force.achieved) or [snapshot.routed or ""]
    answering = [name for name in reached if snapshot.ready(name)]
    if answering:
        message = f"Requests go to revision {' and '.join(answering)}."
        return Verdict(kind, "True", "Answering", _with_failing_requests(snapshot, message, answering))
    if any(asleep(snapshot, decision.rollout, name) for name in reached):
        return Verdict(kind, "True", ASLEEP, f"No pod answers, as asked: {_WAKES}")
    before = snapshot.service.status.condition(kind)
    if found is None and any(wakes_up(snapshot, decision.rollout, name) for name in reached):
        return Verdict(kind, "Unknown", WAKING, "A trigger asks for a pod, and it starts.")
    if before is None or (before.status == "Unknown" and before.reason != WAKING):
        return Verdict(kind, "Unknown", NOT_YET, "No pod has been ready yet.")
    return Verdict(kind, "False", "NoReadyPods", found.message if found else "No pod is ready.")


def _complete(
    snapshot: Snapshot, decision: Decision, found: Finding | None, lag: Finding | None, *, done: bool
) -> Verdict:
    """Whether the revision that the spec asks for is the one that serves."""
    kind = ConditionType.ROLLOUT_COMPLETE
    before = snapshot.service.status.condition(kind)
    once = before is not None and before.status == "True" and snapshot.service.status.stable == decision.wanted
    if done and (once or (lag is None and snapshot.ready(decision.wanted) >= decision.needed)):
        return Verdict(kind, "True", "Complete", f"Revision {decision.wanted} serves.")
    if decision.failed:
        why = _failure(decision)
        return Verdict(kind, "False", why.reason, why.message)
    if lag is not None:
        return Verdict(kind, "False", lag.reason, lag.message)
    if decision.overdue:
        why = _late(found)
        return Verdict(kind, "False", why.reason, f"Revision {decision.wanted}: {why.message}")
    if decision.rollout is not None:
        return Verdict(kind, "False", decision.rollout.phase, decision.rollout.message)
    told = f"Revision {decision.wanted} takes over when {decision.needed} of its pods are ready."
    return Verdict(kind, "False", "Progressing", told)


def _traffic(snapshot: Snapshot, decision: Decision, lag: Finding | None, *, routed: bool) -> Verdict:
    """Whether what shares requests out has taken up what it was told; `routed`: the route says it."""
    kind = ConditionType.TRAFFIC_PROGRAMMED
    hinders = _hindered(decision, _PASSING)
    if hinders is not None:
        return Verdict(kind, "False", hinders.reason, hinders.message)
    if _programmed(snapshot, decision, routed=routed):
        doubt = decision.in_force.doubt
        if doubt is not None:
            return Verdict(kind, "Unknown", doubt.reason, doubt.message)
        return Verdict(kind, "True", "Programmed", "Requests are shared out as asked.")
    trouble = decision.in_force.trouble or lag
    told = trouble.message if trouble else "The traffic has not followed the last change yet."
    return Verdict(kind, "Unknown", "Pending", told)


# What the service's own condition says of variants too, and the truths of it that give way to a variant's.
_OF_ALL: Final[dict[ConditionType, frozenset[Truth]]] = {
    ConditionType.READY: frozenset({"True"}),
    ConditionType.TRAFFIC_PROGRAMMED: frozenset({"True"}),
    ConditionType.RECONCILING: frozenset(),
    ConditionType.STALLED: frozenset(),
}


def for_all(variants: Sequence[str], verdicts: Sequence[Sequence[Verdict]]) -> list[Verdict]:
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


def _programmed(snapshot: Snapshot, decision: Decision, *, routed: bool) -> bool:
    """Whether the traffic goes as it shall, as far as it tells; `routed`: the route says it."""
    return routed and router_of(snapshot.service).follows(decision.in_force.told, decision.shares)


def _hindered(decision: Decision, passing: frozenset[str]) -> Finding | None:
    """Return what the network does not do as asked, but for reasons that pass by themselves."""
    trouble = decision.in_force.trouble
    return trouble if trouble is not None and trouble.reason not in passing else decision.in_force.unsupported
