"""The step machine of one rollout: state and observation in, state out. Pure, and the only place where steps advance.

The state is kept in `status.rollout`, so it is what users read, and a restart of the operator loses nothing. A step
passes when nothing holds it; all that pass at one moment pass together.

The steps in force are part of the state, since the user may change those of the spec at any time: a changed list
applies from where the candidate stands, and its weight never falls by it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from conch.api import Admission, Rollout, RolloutPhase, StepInForce
from conch.api.analysis import GateStatus, Verdict
from conch.api.reasons import Reason
from conch.api.times import format_time
from conch.decide.gates import override
from conch.decide.rollout.request import Request
from conch.decide.rollout.waits import is_late, restart_step
from conch.decide.state import RolloutState, whole
from conch.decide.strategies import STRATEGIES
from conch.observe import Finding


@dataclass(frozen=True)
class Observation:
    """What a step may wait for, at one moment."""

    now: float  # seconds since the epoch
    ready: int  # pods of the candidate that answer
    pods: Callable[[int], int]  # weight -> ready pods that it takes
    verify_weight: Callable[[int], bool]  # weight -> whether the traffic gives the candidate just that
    observed_weight: int  # the candidate's share in percent, as the traffic's own status shows it
    traffic: Finding | None = None  # why the traffic does not have the desired weight
    traffic_source: str = "the gateway shows"  # what shows the observed weight, with its verb
    not_ready: Finding | None = None  # why the candidate's pods are not up
    not_answering: Finding | None = None  # the finding for a candidate without ready pods
    broken: Finding | None = None  # why it must not go on, whatever the step
    before_first_share: Finding | None = None  # what must be over before its first request: warm-up, a gate's Job
    gates: tuple[GateStatus, ...] = ()  # their results; before the candidate's first request only those of Jobs
    once: frozenset[str] = frozenset()  # the gates among them that are evaluated once for all steps
    stable_waits: frozenset[str] = frozenset()  # the reasons of gates that wait for a ready pod of the stable revision
    missing_stable_pods: int = 0  # pods that the stable revision lacks
    admission: Finding | None = None  # why the candidate's pods may not start beside the stable revision's yet
    request: Request | None = None


def restart_failed(state: RolloutState, request: Request | None, now: float) -> RolloutState:
    """Return the state of a rollout that failed and begins once more, where a user requests that."""
    if not state.has_failed or request is None or request.verb != "retry" or request.text == state.request:
        return state
    return replace(RolloutState.begin(state.revision, state.capacity, now), request=request.text)


def with_steps(state: RolloutState, steps: tuple[StepInForce, ...], now: float) -> RolloutState:
    """Return the state with these steps in force, at the one with which it goes on.

    Passed are weights up to the candidate's, and pauses and analyses that were passed in the former list. One that was
    not passed, and is in both lists, is not passed in the new one. So a Manual pause holds the rollout until a user
    ends it, and an edit alone does not move requests.

    Args:
        state: of a rollout under way.
        steps: as a strategy returns them.
        now: seconds since the epoch.
    """
    if not 0 <= state.step <= len(state.steps or steps):
        state = replace(state, step=0)  # out of range, a foreign write: only the weight counts
    elif state.steps == steps:
        return state
    if not state.steps:  # it begins, or an operator that kept no steps began it
        return replace(state, steps=steps, step=min(state.step, len(steps) - 1))
    passed, rest = state.steps[: state.step], state.steps[state.step :]
    at = 0
    while at < len(steps) - 1:
        step = steps[at]
        seen = steps[: at + 1].count(step)
        if step.weight is not None:
            is_passed = step.weight <= state.weight
        else:
            is_passed = seen <= min(passed.count(step), steps.count(step) - rest.count(step))
        if not is_passed:
            break
        at += 1
    since = state.since if state.current_step == steps[at] else whole(now)
    return replace(state, steps=steps, step=at, since=since)


def advance(state: RolloutState, rollout: Rollout, observation: Observation) -> RolloutState:
    """Return the state after one observation.

    Args:
        state: of the rollout, with its strategy.
        rollout: of the spec.
        observation: of this moment.
    """
    if state.has_failed:
        return state
    now = observation.now
    state = with_steps(state, STRATEGIES[state.strategy].steps(rollout), now)
    request = observation.request
    if request is not None and request.text == state.request:
        request = None
    if request is not None and request.verb == "abort":
        return _fail(state, Finding(Reason.ABORTED, "It was aborted by hand."), request.text)
    if request is not None and request.verb == "promote":
        state, observation = _promote(state, observation, request)
    was_unavailable = state.unavailable_since is not None
    state = replace(
        state,
        observed_weight=observation.observed_weight,
        gates=observation.gates,
        unavailable_since=_find_unavailable_since(state, observation),
    )
    if state.reason == Reason.PAUSED_ON_FAILURE:
        return state  # it waits for promote or abort; a request to pause changes nothing
    broken = observation.broken or _find_failed_gate(observation.gates)
    if broken is not None:
        return _handle_failure(state, rollout, broken)
    if state.unavailable_since is not None:
        return _wait_until_available(state, state.unavailable_since, rollout, observation)
    if was_unavailable:
        state = replace(state, since=whole(now))
    return _hold(state, observation) or _pass_steps(restart_step(state, now), rollout, observation)


def _find_unavailable_since(state: RolloutState, observation: Observation) -> float | None:
    """Return since when a candidate with requests has no ready pod, until it has the pods for its weight again."""
    since = state.unavailable_since
    if state.weight == 0:
        return None
    if observation.ready == 0:
        return whole(observation.now) if since is None else since
    return since if observation.ready < observation.pods(state.weight) else None


def _wait_until_available(
    state: RolloutState, since: float, rollout: Rollout, observation: Observation
) -> RolloutState:
    """Wait for a ready pod of the candidate, in a pause too; fail after the progress deadline."""
    why = observation.not_ready or observation.not_answering or Finding(Reason.NOT_ANSWERING, "No pod of it is ready.")
    if observation.now - since <= rollout.progress_deadline_seconds:
        ready = f"{observation.ready} of its {observation.pods(state.weight)} pods for {state.weight} % are ready"
        message = f"{ready}; the stable revision gets its requests until they are. {why.message}"
        return _wait(state, Finding(why.reason, message))
    late = f"No pod of the candidate was ready for {rollout.progress_deadline}. {why.message}"
    return _handle_failure(state, rollout, Finding(why.reason, late))


def _hold(state: RolloutState, observation: Observation) -> RolloutState | None:
    """Return the state of a rollout that no step can move: a user paused it, or it is not admitted."""
    if observation.request is not None and observation.request.verb == "pause":
        return _wait(state, Finding(Reason.PAUSED_BY_USER, "It is held by hand."), RolloutPhase.PAUSED)
    if state.awaits_admission and observation.admission is not None:
        return _wait(state, observation.admission)
    return None


def _pass_steps(state: RolloutState, rollout: Rollout, observation: Observation) -> RolloutState:
    """Pass every step that nothing holds, and name what holds the next."""
    state = replace(state, phase=RolloutPhase.PROGRESSING)
    while (step := state.current_step) is not None:
        if step.pause is not None:
            wait = _pause(state, step, observation.now)
            if wait is not None:
                return _wait(state, wait, RolloutPhase.PAUSED)
        elif step.analysis is not None:
            wait = _analysis(state, step, observation)
        else:
            state, wait = _weight(state, max(step.weight or 0, state.weight), rollout, observation)
        if wait is not None:
            return _check_deadline(_wait(state, wait), rollout, observation)
        state = state.at_step(state.step + 1, observation.now)
    return _wait(state, Finding(Reason.COMPLETING, "All requests reach it."))


def _pause(state: RolloutState, step: StepInForce, now: float) -> Finding | None:
    """Return what a pause waits for: its end, or a user."""
    if step.pause_seconds is None:
        return Finding(
            Reason.WAITS_FOR_PROMOTION, f"Step {state.step} is a pause that a person ends: kubectl conch promote"
        )
    end = state.since + step.pause_seconds
    return Finding(Reason.PAUSED, f"Step {state.step} is a pause until {format_time(end)}.") if now < end else None


def _analysis(state: RolloutState, step: StepInForce, observation: Observation) -> Finding | None:
    """Return what an analysis waits for: its time, and a result of every gate."""
    end = state.since + step.analysis_seconds
    if observation.now < end:
        return Finding(Reason.ANALYSIS, f"Step {state.step} is an analysis until {format_time(end)}.")
    inconclusive = next((gate for gate in observation.gates if not gate.lets_pass), None)
    if inconclusive is not None:
        return Finding(Reason.INCONCLUSIVE, f"Gate {inconclusive.name} is inconclusive: {inconclusive.message}")
    return None if observation.gates else Finding(Reason.INCONCLUSIVE, "No gate has been evaluated yet.")


def _find_failed_gate(gates: tuple[GateStatus, ...]) -> Finding | None:
    failed = next((gate for gate in gates if gate.verdict == Verdict.FAILED), None)
    return Finding(Reason.ANALYSIS_FAILED, f"Gate {failed.name}: {failed.message}") if failed else None


def _weight(
    state: RolloutState, weight: int, rollout: Rollout, observation: Observation
) -> tuple[RolloutState, Finding | None]:
    """Raise the weight when nothing prevents it; wait until the traffic has it."""
    wait = _find_missing_pods(state, weight, rollout, observation) or observation.before_first_share
    if wait is not None:
        return state, wait
    if weight > state.weight:  # which is progress
        state = replace(state, weight=weight, since=whole(observation.now))
    if observation.verify_weight(weight):
        return state, None
    message = f"{weight} % of the requests are to go to {state.revision}; {observation.traffic_source} another state."
    return state, observation.traffic or Finding(Reason.WAITS_FOR_TRAFFIC, message)


def _find_missing_pods(state: RolloutState, weight: int, rollout: Rollout, observation: Observation) -> Finding | None:
    """Return which pods are missing for a weight: the candidate's, or the stable revision's for a rollback.

    The latter does not hold a candidate that has pods for all requests, or that a user promoted in full. It holds for
    the progress deadline at most, since the change may be the fix of the stable revision.
    """
    needed, lacks = observation.pods(weight), observation.missing_stable_pods
    if observation.ready < needed:
        message = f"{observation.ready} of the {needed} pods for {weight} % are ready."
        return observation.not_ready or Finding(Reason.MINIMUM_REPLICAS_UNAVAILABLE, message)
    holds = observation.now - state.since <= rollout.progress_deadline_seconds
    if lacks and weight > state.weight and holds and not _needs_no_fallback(state, observation):
        message = f"The stable revision lacks {lacks} of its pods; no share is moved until it has them."
        return Finding(Reason.STABLE_NOT_READY, message)
    return None


def _needs_no_fallback(state: RolloutState, observation: Observation) -> bool:
    """Whether a candidate may get requests that the stable revision could not take back."""
    request = observation.request
    is_promoted = request is not None and request.verb == "promote" and request.step is None
    in_full = is_promoted and request is not None and request.text == state.request
    # A rollout of new content may have taken over the request of the one before, and has its own steps yet.
    return (in_full and state.step >= len(state.steps) - 1) or observation.ready >= observation.pods(100)


def _check_deadline(state: RolloutState, rollout: Rollout, observation: Observation) -> RolloutState:
    """Count a wait that lasts too long as a failure, for the reason of the wait.

    Not a wait for the stable revision: a rollback would lead to it.
    """
    if not is_late(state, rollout, observation.now):
        return state
    if state.reason in observation.stable_waits:
        return state
    message = f"No progress within {rollout.progress_deadline}: {state.message}"
    has_reason = observation.not_ready is not None or state.reason in {Reason.INCONCLUSIVE, Reason.JOB_PODS_REFUSED}
    reason = state.reason if has_reason else Reason.PROGRESS_DEADLINE_EXCEEDED
    return _handle_failure(state, rollout, Finding(reason, message))


def _promote(state: RolloutState, observation: Observation, request: Request) -> tuple[RolloutState, Observation]:
    """Pass the step that a user names, or all; of a candidate that is not admitted, first its admission."""
    last = len(state.steps) - 1
    if request.step is not None and request.step != state.step:
        return state, observation
    if state.awaits_admission:
        state = replace(state, admission=Admission.OVERRIDDEN)
        if request.step is not None:
            return replace(state, request=request.text), observation
    step = last if request.step is None else min(state.step + 1, last)
    promoted = replace(
        state.at_step(max(step, state.step), observation.now),
        phase=RolloutPhase.PROGRESSING,
        reason="",
        gates=(),
        unavailable_since=None,  # its pods get the progress deadline once more
        request=request.text,
    )
    return promoted, replace(observation, gates=_keep_gates(state, observation))


def _keep_gates(state: RolloutState, observation: Observation) -> tuple[GateStatus, ...]:
    """Return the results that count after a promotion: not those of the step that is passed.

    A gate that is evaluated once keeps its result, which is overridden where it held the rollout: a pause waits only
    for its own end.
    """
    holds = state.reason == Reason.PAUSED_ON_FAILURE or not state.is_at_pause
    kept = (gate for gate in observation.gates if gate.name in observation.once)
    return tuple(override(gate, observation.now) if holds else gate for gate in kept)


def _wait(state: RolloutState, why: Finding, phase: RolloutPhase = RolloutPhase.PROGRESSING) -> RolloutState:
    return replace(state, phase=phase, reason=why.reason, message=why.message)


def _handle_failure(state: RolloutState, rollout: Rollout, why: Finding) -> RolloutState:
    """Roll back, or pause until a user decides, as spec.rollout.onFailure sets."""
    if rollout.on_failure == "Rollback":
        return _fail(state, why, state.request)
    message = f"{why.reason}: {why.message} Promote it or abort it: kubectl conch promote | abort"
    return _wait(state, Finding(Reason.PAUSED_ON_FAILURE, message), RolloutPhase.PAUSED)


def _fail(state: RolloutState, why: Finding, request: str) -> RolloutState:
    failed = _wait(state, why, RolloutPhase.FAILED)
    return replace(failed, weight=0, request=request, unavailable_since=None, stable_unavailable_since=None)
