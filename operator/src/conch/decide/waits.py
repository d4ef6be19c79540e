"""Waits of a rollout: their reasons, since when they last, and when their deadlines are over. Pure."""

from typing import Final

from conch.api import Admission, Rollout, RolloutPhase, RolloutStatus, StepInForce
from conch.api.times import format_time, parse_time
from conch.decide.request import PAUSED_BY_USER

# What a candidate without pods waits for: GPUs, or a word on how many there are.
INSUFFICIENT_GPU: Final = "InsufficientGPU"
CHECKING_CAPACITY: Final = "CheckingCapacity"
ON_FAILURE: Final = "PausedOnFailure"


def get_step(memory: RolloutStatus) -> StepInForce | None:
    """Return the step under way; None when all are passed."""
    return memory.steps[memory.step] if 0 <= memory.step < len(memory.steps) else None


def resumed(memory: RolloutStatus, now: float) -> RolloutStatus:
    """Begin a step anew that could not go on: the time that it was held does not count."""
    step = get_step(memory)
    by_hand = memory.reason == PAUSED_BY_USER and step is not None and step.pause is None
    if by_hand or memory.reason in {INSUFFICIENT_GPU, CHECKING_CAPACITY}:
        return memory.model_copy(update={"since": format_time(now)})
    return memory


def is_late(memory: RolloutStatus, rollout: Rollout, now: float) -> bool:
    """Whether the progress deadline of the step under way is over.

    A pause has none. The time that a user, or a lack of GPUs, held the rollout does not count.
    """
    step = get_step(memory)
    if memory.admission == Admission.PENDING or (step is not None and step.pause is not None):
        return False
    length = step.analysis_seconds if step else 0.0
    return now - parse_time(resumed(memory, now).since) > length + rollout.progress_deadline_seconds


def follow_stable(memory: RolloutStatus, now: float, *, is_silent: bool, is_back: bool) -> RolloutStatus:
    """Return the memory with the time since when the parity gate waits for a ready pod of the stable revision.

    Once it has one, the step's deadline moves by the wait. An end of a pause does not.

    Args:
        memory: of the rollout.
        now: seconds since the epoch.
        is_silent: whether the gate waits for a ready pod.
        is_back: whether the stable revision has one.
    """
    if memory.phase == RolloutPhase.FAILED:
        return memory
    if is_silent:
        since = memory.stable_unavailable_since or format_time(now)
        return memory.model_copy(update={"stable_unavailable_since": since})
    if memory.stable_unavailable_since is None:
        return memory
    update: dict[str, object] = {"stable_unavailable_since": None}
    step, since_step = get_step(memory), parse_time(memory.since)
    if is_back and (step is None or step.pause is None):
        lost = now - max(since_step, parse_time(memory.stable_unavailable_since))
        update["since"] = format_time(since_step + max(0.0, lost))
    return memory.model_copy(update=update)


def is_silence_late(memory: RolloutStatus, rollout: Rollout, now: float) -> bool:
    """Whether the stable revision has had no ready pod for the progress deadline, and the step's is over too."""
    if memory.stable_unavailable_since is None:
        return False
    silence = now - parse_time(memory.stable_unavailable_since)
    return silence > rollout.progress_deadline_seconds and is_late(memory, rollout, now)


def wait_of(memory: RolloutStatus, rollout: Rollout, now: float) -> float | None:
    """Return the seconds until the clock alone will move this rollout; None if it never will."""
    if memory.phase == RolloutPhase.FAILED or memory.admission == Admission.PENDING or memory.reason == ON_FAILURE:
        return None
    if memory.unavailable_since is not None:
        return max(0.0, parse_time(memory.unavailable_since) + rollout.progress_deadline_seconds - now)
    step = get_step(memory)
    passed = now - parse_time(memory.since)
    if step is not None and step.pause_seconds is not None and memory.reason != PAUSED_BY_USER:
        return max(0.0, step.pause_seconds - passed)
    if memory.phase == RolloutPhase.PAUSED:
        return None
    length = step.analysis_seconds if step else 0.0
    if passed < length:
        return length - passed
    left = length + rollout.progress_deadline_seconds - passed
    if memory.stable_unavailable_since is not None:
        silence = now - parse_time(memory.stable_unavailable_since)
        left = max(left, rollout.progress_deadline_seconds - silence)
    return max(0.0, left)
