"""The step machine of one rollout: memory and facts in, memory out. Pure, and the only place where steps advance.

The memory is `RolloutStatus` itself, so what the operator remembers is what people read, and a restart
forgets nothing. A step passes when nothing makes it wait; all that pass at one moment pass together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from conch.api import Rollout, RolloutState, RolloutStatus, Room, Step
from conch.api.analysis import GateStatus, Verdict, named
from conch.api.times import format_time, parse_time
from conch.decide.parity import overruled
from conch.decide.request import Request
from conch.observe import Trouble

LAST: Final = Step(weight=100)
# What a candidate without pods waits for: GPUs, or a word on how many there are.
GPU_SHORT: Final = "GpuShort"
WAITS_FOR_BUDGET: Final = "WaitsForBudget"
_BY_HAND: Final = "PausedByHand"
_ON_FAILURE: Final = "PausedOnFailure"


@dataclass(frozen=True)
class Facts:
    """What a step may wait for, at one moment."""

    now: float  # seconds since the epoch
    ready: int  # pods of the candidate that answer
    pods: Callable[[int], int]  # weight -> pods that it takes
    follows: Callable[[int], bool]  # weight -> whether the traffic gives the candidate just that
    achieved: int  # the candidate's share as far as anybody can tell, in percent
    traffic: Trouble | None = None  # why the traffic does not follow
    down: Trouble | None = None  # why the candidate's pods are not up
    broken: Trouble | None = None  # why it must not go on, whatever the step
    warm: Trouble | None = None  # what must be over before its first request: its warm-up, the parity gate
    gates: tuple[GateStatus, ...] = ()  # what they say; before the candidate's first request only parity
    once: str = ""  # the gate among them that is judged once for all steps
    stable_lacks: int = 0  # pods that the stable revision lacks
    room: Trouble | None = None  # why the candidate's pods may not start beside the stable's yet
    request: Request | None = None


def going(rollout: Rollout, memory: RolloutStatus | None) -> Rollout:
    """Return how a rollout goes: as the spec says, or as Recreate does where GPUs are short.

    Then there are no steps, since there are no two revisions to share the requests, and nobody to compare with.
    """
    if memory is None or memory.room != Room.SHORT:
        return rollout
    gates = tuple(gate for gate in named(rollout.analysis) if gate.parity is None)
    return rollout.model_copy(update={"strategy": "Recreate", "steps": (), "analysis": gates})


def stages(rollout: Rollout) -> tuple[Step, ...]:
    """Return the user's steps, and all requests behind them."""
    weights = [step.weight for step in rollout.steps if step.weight is not None]
    return rollout.steps if weights and weights[-1] == 100 else (*rollout.steps, LAST)


def begin(revision: str, capacity: int, now: float) -> RolloutStatus:
    """Return the memory of a rollout that begins."""
    moment = format_time(now)
    return RolloutStatus(
        revision=revision, state=RolloutState.PROGRESSING, since=moment, started=moment, capacity=capacity
    )


def again(memory: RolloutStatus, request: Request | None, now: float) -> RolloutStatus:
    """Return the memory of a rollout that failed and is begun once more, where a person asks for that."""
    if memory.state != RolloutState.FAILED or request is None or request.verb != "retry":
        return memory
    if request.text == memory.request:
        return memory
    return begin(memory.revision, memory.capacity, now).model_copy(update={"request": request.text})


def advance(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Return what is remembered after looking at the facts."""
    if memory.state == RolloutState.FAILED:
        return memory
    request = facts.request if facts.request and facts.request.text != memory.request else None
    if request is not None and request.verb == "abort":
        return _failed(memory, Trouble("Aborted", "It was aborted by hand."), request.text)
    if request is not None and request.verb == "promote":
        memory, facts = _promoted(memory, rollout, facts, request)
    memory = memory.model_copy(update={"programmed": facts.achieved, "gates": facts.gates})
    broken = facts.broken or _gate_failed(facts.gates)
    if memory.reason != _ON_FAILURE and broken is not None:
        return _failure(memory, rollout, broken)
    return _held(memory, facts) or _walk(_resumed(memory, rollout, facts.now), rollout, facts)


def _held(memory: RolloutStatus, facts: Facts) -> RolloutStatus | None:
    """Return the memory of a rollout that no step can move: a person holds it, is asked, or there is no room for it."""
    if memory.reason == _ON_FAILURE:
        return memory  # a person decides, and to hold it is no decision: it is held
    if facts.request is not None and facts.request.verb == "pause":
        return _waiting(memory, Trouble(_BY_HAND, "It is held by hand."), RolloutState.PAUSED)
    if memory.room == Room.AWAITED and facts.room is not None:
        return _waiting(memory, facts.room, RolloutState.PROGRESSING)
    return None


def _resumed(memory: RolloutStatus, rollout: Rollout, now: float) -> RolloutStatus:
    """Begin a step anew that could not go on: the time that it was held does not count."""
    step = _step(memory, rollout)
    by_hand = memory.reason == _BY_HAND and step is not None and step.pause is None
    if by_hand or memory.reason in {GPU_SHORT, WAITS_FOR_BUDGET}:
        return memory.model_copy(update={"since": format_time(now)})
    return memory


def wait_of(memory: RolloutStatus, rollout: Rollout, now: float) -> float | None:
    """Return the seconds until the clock alone will move this rollout; None if it never will."""
    if memory.state == RolloutState.FAILED or memory.room == Room.AWAITED:
        return None
    step = _step(memory, rollout)
    passed = now - parse_time(memory.since)
    if step is not None and step.pause_seconds is not None:
        return max(0.0, step.pause_seconds - passed)
    if memory.state == RolloutState.PAUSED:
        return None
    length = step.analysis_seconds if step else 0.0
    if passed < length:
        return length - passed
    return max(0.0, length + rollout.progress_deadline_seconds - passed)


def _walk(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Pass every step that nothing holds, and say what holds the next."""
    memory = memory.model_copy(update={"state": RolloutState.PROGRESSING})
    while (step := _step(memory, rollout)) is not None:
        if step.pause is not None:
            waits = _pause(memory, step, facts.now)
            if waits is not None:
                return _waiting(memory, waits, RolloutState.PAUSED)
        elif step.analysis is not None:
            waits = _analysis(memory, step, facts)
        else:
            memory, waits = _weight(memory, step.weight or 0, facts)
        if waits is not None:
            return _overdue(_waiting(memory, waits, RolloutState.PROGRESSING), rollout, facts)
        memory = memory.model_copy(update={"step": memory.step + 1, "since": format_time(facts.now)})
    return _waiting(memory, Trouble("Completing", "All requests reach it."), RolloutState.PROGRESSING)


def _pause(memory: RolloutStatus, step: Step, now: float) -> Trouble | None:
    """What a pause waits for: its end, or a person."""
    if step.pause_seconds is None:
        return Trouble("WaitsForPromotion", f"Step {memory.step} is a pause that a person ends: kubectl conch promote")
    over = parse_time(memory.since) + step.pause_seconds
    return Trouble("Paused", f"Step {memory.step} is a pause until {format_time(over)}.") if now < over else None


def _analysis(memory: RolloutStatus, step: Step, facts: Facts) -> Trouble | None:
    """What an analysis waits for: its time, and a word from every gate."""
    over = parse_time(memory.since) + step.analysis_seconds
    if facts.now < over:
        return Trouble("Analysis", f"Step {memory.step} is an analysis until {format_time(over)}.")
    silent = next((gate for gate in facts.gates if gate.verdict != Verdict.PASSED), None)
    if silent is not None:
        return Trouble("Inconclusive", f"Gate {silent.name} cannot tell yet: {silent.message}")
    return None if facts.gates else Trouble("Inconclusive", "No gate has looked yet.")


def _gate_failed(gates: tuple[GateStatus, ...]) -> Trouble | None:
    failed = next((gate for gate in gates if gate.verdict == Verdict.FAILED), None)
    return Trouble("AnalysisFailed", f"Gate {failed.name}: {failed.message}") if failed else None


def _weight(memory: RolloutStatus, weight: int, facts: Facts) -> tuple[RolloutStatus, Trouble | None]:
    """Raise the share when nothing is in its way; wait until the traffic follows."""
    waits = _capacity(memory, weight, facts) or facts.warm
    if waits is not None:
        return memory, waits
    memory = memory.model_copy(update={"weight": weight})
    if facts.follows(weight):
        return memory, None
    told = f"{weight} % is asked for; the traffic has not followed yet."
    return memory, facts.traffic or Trouble("WaitsForTraffic", told)


def _capacity(memory: RolloutStatus, weight: int, facts: Facts) -> Trouble | None:
    """What pods are missing for a share: the candidate's for what it gets, the stable's for what it may get back."""
    needed = facts.pods(weight)
    if facts.ready < needed:
        return facts.down or Trouble("WaitsForPods", f"{facts.ready} of the {needed} pods for {weight} % are ready.")
    if facts.stable_lacks and weight > memory.weight:
        lacks = f"The stable revision lacks {facts.stable_lacks} of its pods; no share is moved until it has them."
        return Trouble("StableNotReady", lacks)
    return None


def _overdue(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> RolloutStatus:
    """Count a wait that lasts too long as a failure, for the reason of the wait."""
    step = _step(memory, rollout)
    length = step.analysis_seconds if step else 0.0
    if facts.now - parse_time(memory.since) <= length + rollout.progress_deadline_seconds:
        return memory
    late = f"No progress within {rollout.progress_deadline}: {memory.message}"
    named = facts.down is not None or memory.reason == "Inconclusive"
    reason = memory.reason if named else "ProgressDeadlineExceeded"
    return _failure(memory, rollout, Trouble(reason, late))


def _promoted(memory: RolloutStatus, rollout: Rollout, facts: Facts, request: Request) -> tuple[RolloutStatus, Facts]:
    """Go past the step that a person names, or past all; of a candidate without room, first past the want of it."""
    last = len(stages(rollout)) - 1
    if request.step is not None and request.step != memory.step:
        return memory, facts
    if memory.room == Room.AWAITED:
        memory = memory.model_copy(update={"room": Room.OVERRULED.value})
        if request.step is not None:
            return memory.model_copy(update={"request": request.text}), facts
    step = last if request.step is None else min(memory.step + 1, last)
    promoted = memory.model_copy(
        update={
            "step": max(step, memory.step),
            "since": format_time(facts.now),
            "state": RolloutState.PROGRESSING,
            "reason": "",
            "gates": (),
            "request": request.text,
        }
    )
    return promoted, replace(facts, gates=_past(memory, rollout, facts))


def _past(memory: RolloutStatus, rollout: Rollout, facts: Facts) -> tuple[GateStatus, ...]:
    """Return what the gates say to a promotion: what was said of the step that is left counts no more.

    What is said once stays, and is overruled where it is what held the rollout: a pause only waits for its own end.
    """
    step = _step(memory, rollout)
    holds = memory.reason == _ON_FAILURE or step is None or step.pause is None
    lasting = (gate for gate in facts.gates if gate.name == facts.once)
    return tuple(overruled(gate, facts.now) if holds else gate for gate in lasting)


def _step(memory: RolloutStatus, rollout: Rollout) -> Step | None:
    every = stages(rollout)
    return every[memory.step] if memory.step < len(every) else None


def _waiting(memory: RolloutStatus, why: Trouble, state: RolloutState) -> RolloutStatus:
    return memory.model_copy(update={"state": state, "reason": why.reason, "message": why.message})


def _failure(memory: RolloutStatus, rollout: Rollout, why: Trouble) -> RolloutStatus:
    """Fail, or stop and ask, as the user wants it."""
    if rollout.on_failure == "Rollback":
        return _failed(memory, why, memory.request)
    asks = Trouble(_ON_FAILURE, f"{why.reason}: {why.message} Promote it or abort it: kubectl conch promote | abort")
    return _waiting(memory, asks, RolloutState.PAUSED)


def _failed(memory: RolloutStatus, why: Trouble, request: str) -> RolloutStatus:
    return _waiting(memory, why, RolloutState.FAILED).model_copy(update={"weight": 0, "request": request})
