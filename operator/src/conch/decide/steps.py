"""The step machine of one rollout: memory and facts in, memory out. Pure, and the only place where steps advance.

The memory is `RolloutStatus` itself, so what the operator remembers is what people read, and a restart
forgets nothing. A step passes when nothing makes it wait; all that pass at one moment pass together.

The steps in force are part of the memory, since the user may change those of the spec at any time: a changed list is
taken up where the candidate stands, and its share never falls by it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from conch.api import Admission, Rollout, RolloutPhase, RolloutStatus, StepInForce
from conch.api.analysis import GateStatus, Verdict, named
from conch.api.times import format_time, parse_time
from conch.decide.gates import COMPARING, override
from conch.decide.request import PAUSED_BY_USER, Request
from conch.decide.waits import ON_FAILURE, get_step, is_late, resumed
from conch.decide.warm import JOB_REFUSED
from conch.observe import Finding

LAST: Final = StepInForce(weight=100)


@dataclass(frozen=True)
class Facts:
    """What a step may wait for, at one moment."""

    now: float  # seconds since the epoch
    ready: int  # pods of the candidate that answer
    pods: Callable[[int], int]  # weight -> pods that it takes
    follows: Callable[[int], bool]  # weight -> whether the traffic gives the candidate just that
    achieved: int  # the candidate's share as far as anybody can tell, in percent
    traffic: Finding | None = None  # why the traffic does not follow
    follower: str = "the gateway shows"  # what shows that the traffic follows, with its verb
    down: Finding | None = None  # why the candidate's pods are not up
    unavailable: Finding | None = None  # the finding for a candidate without ready pods
    broken: Finding | None = None  # why it must not go on, whatever the step
    warm: Finding | None = None  # what must be over before its first request: its warm-up, the parity gate
    gates: tuple[GateStatus, ...] = ()  # what they say; before the candidate's first request only parity
    once: str = ""  # the gate among them that is evaluated once for all steps
    stable_lacks: int = 0  # pods that the stable revision lacks
    admission: Finding | None = None  # why the candidate's pods may not start beside the stable's yet
    request: Request | None = None


def going(rollout: Rollout, memory: RolloutStatus | None, *, alone: bool = False) -> Rollout:
    """Return how a rollout goes: as the spec says, as Recreate does where GPUs are short, or alone.

    In the latter two there are no steps and no parity gate, since no second revision has requests.

    Args:
        rollout: as the spec says.
        memory: of the rollout; None: none is under way.
        alone: the stable revision has never been ready, so that the candidate replaces nothing.
    """
    short = memory is not None and memory.admission == Admission.INSUFFICIENT
    if not short and not alone:
        return rollout
    gates = tuple(gate for gate in named(rollout.analysis) if gate.parity is None)
    strategy = "Recreate" if short else rollout.strategy
    return rollout.model_copy(update={"strategy": strategy, "steps": (), "analysis": gates})


def stages(rollout: Rollout) -> tuple[StepInForce, ...]:
    """Return the user's steps; the last of them gives the candidate all requests.

    >>> [step.to_wire() for step in stages(Rollout.model_validate({"steps": [{"weight": 100}, {"pause": "1m"}]}))]
    [{'weight': 100}, {'pause': '1m'}, {'weight': 100}]
    """
    steps = tuple(StepInForce(weight=s.weight, pause=s.pause, analysis=s.analysis) for s in rollout.steps)
    return steps if steps[-1:] == (LAST,) else (*steps, LAST)


def get_steps(rollout: Rollout, memory: RolloutStatus | None) -> tuple[StepInForce, ...]:
    """Return the steps in force: those that the memory holds; before a rollout has any, those of the spec."""
    return memory.steps if memory is not None and memory.steps else stages(going(rollout, memory))


def begin(revision: str, capacity: int, now: float) -> RolloutStatus:
    """Return the memory of a rollout that begins."""
    moment = format_time(now)
    return RolloutStatus(
        revision=revision, phase=RolloutPhase.PROGRESSING, since=moment, started=moment, capacity=capacity
    )


def again(memory: RolloutStatus, request: Request | None, now: float) -> RolloutStatus:
    """Return the memory of a rollout that failed and is begun once more, where a person asks for that."""
    if memory.phase != RolloutPhase.FAILED or request is None or request.verb != "retry":
        return memory
    if request.text == memory.request:
        return memory
    return begin(memory.revision, memory.capacity, now).model_copy(update={"request": request.text})


def with_steps(memory: RolloutStatus, steps: tuple[StepInForce, ...], now: float) -> RolloutStatus:
    """Return the memory with these steps in force, at the one with which it goes on.

    Passed are weights up to the candidate's, and pauses and analyses that were passed in the former list. One that was
    not passed, and is in both lists, is not passed in the new one. So a Manual pause holds the rollout until a user
    ends it, and an edit alone does not move requests.

    Args:
        memory: of a rollout under way.
        steps: as `stages` returns them.
        now: seconds since the epoch.
    """
    if not 0 <= memory.step <= len(memory.steps or steps):
        memory = memory.model_copy(update={"step": 0})  # out of range, a foreign write: only the weight counts
    elif memory.steps == steps:
        return memory
    if not memory.steps:  # it begins, or an operator that kept no steps began it
        return memory.model_copy(update={"steps": steps, "step": min(memory.step, len(steps) - 1)})
    passed, rest = memory.steps[: memory.step], memory.steps[memory.step :]
    at = 0
    while at < len(steps) - 1:
        step = steps[at]
        seen = steps[: at + 1].count(step)
        if step.weight is not None:
            is_passed = step.weight <= memory.weight
        else:
            is_passed = seen <= min(passed.count(step), steps.count(step) - rest.count(step))
        if not is_passed:
            break
        at += 1
    same = get_step(memory) == steps[at]
    return memory.model_copy(update={"steps": steps, "step": at, "since": memory.since if same else format_time(now)})


def advance(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Return what is remembered after looking at the facts."""
    if memory.phase == RolloutPhase.FAILED:
        return memory
    memory = with_steps(memory, stages(rollout), facts.now)
    request = facts.request if facts.request and facts.request.text != memory.request else None
    if request is not None and request.verb == "abort":
        return _failed(memory, Finding("Aborted", "It was aborted by hand."), request.text)
    if request is not None and request.verb == "promote":
        memory, facts = _promoted(memory, facts, request)
    was_away = memory.unavailable_since is not None
    away = _find_unavailable_since(memory, facts)
    update = {"observed_weight": facts.achieved, "gates": facts.gates, "unavailable_since": away}
    memory = memory.model_copy(update=update)
    if memory.reason == ON_FAILURE:
        return memory  # a person decides, and to hold it is no decision: it is held
    broken = facts.broken or _gate_failed(facts.gates)
    if broken is not None:
        return _failure(memory, rollout, broken)
    if away is not None:
        return _wait_until_available(memory, rollout, facts)
    if was_away:
        memory = memory.model_copy(update={"since": format_time(facts.now)})
    return _held(memory, facts) or _walk(resumed(memory, facts.now), rollout, facts)


def _find_unavailable_since(memory: RolloutStatus, facts: Facts) -> str | None:
    """Return since when a candidate with requests has no ready pod, until it has the pods for its weight again."""
    if memory.weight == 0:
        return None
    if facts.ready == 0:
        return memory.unavailable_since or format_time(facts.now)
    return memory.unavailable_since if facts.ready < facts.pods(memory.weight) else None


def _wait_until_available(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Wait for a ready pod of the candidate, in a pause too; fail after the progress deadline."""
    away = facts.now - parse_time(memory.unavailable_since or format_time(facts.now))
    why = facts.down or facts.unavailable or Finding("NotAnswering", "No pod of it is ready.")
    ready = f"{facts.ready} of its {facts.pods(memory.weight)} pods for {memory.weight} % are ready"
    told = f"{ready}; the stable revision gets its requests until they are. {why.message}"
    if away <= rollout.progress_deadline_seconds:
        return _waiting(memory, Finding(why.reason, told), RolloutPhase.PROGRESSING)
    late = f"No pod of the candidate was ready for {rollout.progress_deadline}. {why.message}"
    return _failure(memory, rollout, Finding(why.reason, late))


def _held(memory: RolloutStatus, facts: Facts) -> RolloutStatus | None:
    """Return the memory of a rollout that no step can move: a person holds it, is asked, or there is no room for it."""
    if facts.request is not None and facts.request.verb == "pause":
        return _waiting(memory, Finding(PAUSED_BY_USER, "It is held by hand."), RolloutPhase.PAUSED)
    if memory.admission == Admission.PENDING and facts.admission is not None:
        return _waiting(memory, facts.admission, RolloutPhase.PROGRESSING)
    return None


def _walk(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Pass every step that nothing holds, and say what holds the next."""
    memory = memory.model_copy(update={"phase": RolloutPhase.PROGRESSING})
    while (step := get_step(memory)) is not None:
        if step.pause is not None:
            waits = _pause(memory, step, facts.now)
            if waits is not None:
                return _waiting(memory, waits, RolloutPhase.PAUSED)
        elif step.analysis is not None:
            waits = _analysis(memory, step, facts)
        else:
            memory, waits = _weight(memory, max(step.weight or 0, memory.weight), rollout, facts)
        if waits is not None:
            return _overdue(_waiting(memory, waits, RolloutPhase.PROGRESSING), rollout, facts)
        memory = memory.model_copy(update={"step": memory.step + 1, "since": format_time(facts.now)})
    return _waiting(memory, Finding("Completing", "All requests reach it."), RolloutPhase.PROGRESSING)


def _pause(memory: RolloutStatus, step: StepInForce, now: float) -> Finding | None:
    """What a pause waits for: its end, or a person."""
    if step.pause_seconds is None:
        return Finding("WaitsForPromotion", f"Step {memory.step} is a pause that a person ends: kubectl conch promote")
    over = parse_time(memory.since) + step.pause_seconds
    return Finding("Paused", f"Step {memory.step} is a pause until {format_time(over)}.") if now < over else None


def _analysis(memory: RolloutStatus, step: StepInForce, facts: Facts) -> Finding | None:
    """What an analysis waits for: its time, and a word from every gate."""
    over = parse_time(memory.since) + step.analysis_seconds
    if facts.now < over:
        return Finding("Analysis", f"Step {memory.step} is an analysis until {format_time(over)}.")
    silent = next((gate for gate in facts.gates if not gate.lets_pass), None)
    if silent is not None:
        return Finding("Inconclusive", f"Gate {silent.name} is inconclusive: {silent.message}")
    return None if facts.gates else Finding("Inconclusive", "No gate has been evaluated yet.")


def _gate_failed(gates: tuple[GateStatus, ...]) -> Finding | None:
    failed = next((gate for gate in gates if gate.verdict == Verdict.FAILED), None)
    return Finding("AnalysisFailed", f"Gate {failed.name}: {failed.message}") if failed else None


def _weight(memory: RolloutStatus, weight: int, rollout: Rollout, facts: Facts) -> tuple[RolloutStatus, Finding | None]:
    """Raise the share when nothing is in its way; wait until the traffic follows."""
    waits = _capacity(memory, weight, rollout, facts) or facts.warm
    if waits is not None:
        return memory, waits
    if weight > memory.weight:  # which is progress
        memory = memory.model_copy(update={"weight": weight, "since": format_time(facts.now)})
    if facts.follows(weight):
        return memory, None
    told = f"{weight} % of the requests are to go to {memory.revision}; {facts.follower} another state."
    return memory, facts.traffic or Finding("WaitsForTraffic", told)


def _capacity(memory: RolloutStatus, weight: int, rollout: Rollout, facts: Facts) -> Finding | None:
    """What pods are missing for a share: the candidate's for what it gets, the stable's for what it may get back.

    The latter does not hold a candidate that has pods for all requests, or that a user promoted in full. It holds for
    the progress deadline at most, since the change may be the fix of the stable revision.
    """
    needed = facts.pods(weight)
    if facts.ready < needed:
        return facts.down or Finding(
            "MinimumReplicasUnavailable", f"{facts.ready} of the {needed} pods for {weight} % are ready."
        )
    holds = facts.now - parse_time(memory.since) <= rollout.progress_deadline_seconds
    if facts.stable_lacks and weight > memory.weight and holds and not _needs_no_fallback(memory, facts):
        lacks = f"The stable revision lacks {facts.stable_lacks} of its pods; no share is moved until it has them."
        return Finding("StableNotReady", lacks)
    return None


def _needs_no_fallback(memory: RolloutStatus, facts: Facts) -> bool:
    """Whether a candidate may get requests that the stable revision could not take back."""
    asked = facts.request
    in_full = asked is not None and asked.verb == "promote" and asked.step is None and asked.text == memory.request
    return in_full or facts.ready >= facts.pods(100)


def _overdue(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Count a wait that lasts too long as a failure, for the reason of the wait.

    Not a wait for the stable revision: a way back would lead to it.
    """
    if not is_late(memory, rollout, facts.now):
        return memory
    if memory.stable_unavailable_since is not None and memory.reason == COMPARING:
        return memory
    late = f"No progress within {rollout.progress_deadline}: {memory.message}"
    named = facts.down is not None or memory.reason in {"Inconclusive", JOB_REFUSED}
    reason = memory.reason if named else "ProgressDeadlineExceeded"
    return _failure(memory, rollout, Finding(reason, late))


def _promoted(memory: RolloutStatus, facts: Facts, request: Request) -> tuple[RolloutStatus, Facts]:
    """Go past the step that a person names, or past all; of a candidate without room, first past the want of it."""
    last = len(memory.steps) - 1
    if request.step is not None and request.step != memory.step:
        return memory, facts
    if memory.admission == Admission.PENDING:
        memory = memory.model_copy(update={"admission": Admission.OVERRIDDEN.value})
        if request.step is not None:
            return memory.model_copy(update={"request": request.text}), facts
    step = last if request.step is None else min(memory.step + 1, last)
    promoted = memory.model_copy(
        update={
            "step": max(step, memory.step),
            "since": format_time(facts.now),
            "phase": RolloutPhase.PROGRESSING,
            "reason": "",
            "gates": (),
            "unavailable_since": None,  # its pods get the progress deadline once more
            "request": request.text,
        }
    )
    return promoted, replace(facts, gates=_past(memory, facts))


def _past(memory: RolloutStatus, facts: Facts) -> tuple[GateStatus, ...]:
    """Return what the gates say to a promotion: what was said of the step that is left counts no more.

    What is said once stays, and is overruled where it is what held the rollout: a pause only waits for its own end.
    """
    step = get_step(memory)
    holds = memory.reason == ON_FAILURE or step is None or step.pause is None
    lasting = (gate for gate in facts.gates if gate.name == facts.once)
    return tuple(override(gate, facts.now) if holds else gate for gate in lasting)


def _waiting(memory: RolloutStatus, why: Finding, state: RolloutPhase) -> RolloutStatus:
    return memory.model_copy(update={"phase": state, "reason": why.reason, "message": why.message})


def _failure(memory: RolloutStatus, rollout: Rollout, why: Finding) -> RolloutStatus:
    """Fail, or stop and ask, as the user wants it."""
    if rollout.on_failure == "Rollback":
        return _failed(memory, why, memory.request)
    asks = Finding(ON_FAILURE, f"{why.reason}: {why.message} Promote it or abort it: kubectl conch promote | abort")
    return _waiting(memory, asks, RolloutPhase.PAUSED)


def _failed(memory: RolloutStatus, why: Finding, request: str) -> RolloutStatus:
    gone = {"weight": 0, "request": request, "unavailable_since": None, "stable_unavailable_since": None}
    return _waiting(memory, why, RolloutPhase.FAILED).model_copy(update=gone)
