"""The waits of a rollout: their reasons, when they began, and when their deadlines are over. Pure."""

from dataclasses import replace
from typing import Final

from conch.api import Rollout, RolloutPhase
from conch.api.reasons import Reason
from conch.decide.state import RolloutState, whole

_UNADMITTED: Final = frozenset({Reason.INSUFFICIENT_GPU, Reason.CHECKING_CAPACITY, Reason.SIGNATURE_POLICY_UNREADABLE})


def restart_step(state: RolloutState, now: float) -> RolloutState:
    """Return the state with the current step begun anew if the rollout was held: that time does not count."""
    is_paused_by_user = (
        state.reason == Reason.PAUSED_BY_USER and state.current_step is not None and not state.is_at_pause
    )
    if is_paused_by_user or state.reason in _UNADMITTED:
        return replace(state, since=whole(now))
    return state


def is_late(state: RolloutState, rollout: Rollout, now: float) -> bool:
    """Whether the progress deadline of the current step is over.

    A pause has none. The time that a user, or a missing admission, held the rollout does not count.
    """
    if state.awaits_admission or state.is_at_pause:
        return False
    length = state.current_step.analysis_seconds if state.current_step else 0.0
    return now - restart_step(state, now).since > length + rollout.progress_deadline_seconds


def track_stable(state: RolloutState, now: float, *, is_awaited: bool, is_ready: bool) -> RolloutState:
    """Return the state with the time since when a gate waits for a ready pod of the stable revision.

    Once it has one, the step's deadline moves by the wait. An end of a pause does not.

    Args:
        state: of the rollout.
        now: seconds since the epoch.
        is_awaited: whether a gate waits for a ready pod.
        is_ready: whether the stable revision has one.
    """
    if state.has_failed:
        return state
    if is_awaited:
        since = whole(now) if state.stable_unavailable_since is None else state.stable_unavailable_since
        return replace(state, stable_unavailable_since=since)
    if state.stable_unavailable_since is None:
        return state
    since = state.since
    if is_ready and not state.is_at_pause:
        since = whole(since + max(0.0, now - max(since, state.stable_unavailable_since)))
    return replace(state, stable_unavailable_since=None, since=since)


def is_stable_late(state: RolloutState, rollout: Rollout, now: float) -> bool:
    """Whether the stable revision has had no ready pod for the progress deadline, and the step's is over too."""
    if state.stable_unavailable_since is None:
        return False
    silence = now - state.stable_unavailable_since
    return silence > rollout.progress_deadline_seconds and is_late(state, rollout, now)


def seconds_to_wait(state: RolloutState, rollout: Rollout, now: float) -> float | None:
    """Return the seconds until time alone moves this rollout; None if it never does."""
    deadline = rollout.progress_deadline_seconds
    if state.has_failed or state.awaits_admission or state.reason == Reason.PAUSED_ON_FAILURE:
        return None
    if state.unavailable_since is not None:
        return max(0.0, state.unavailable_since + deadline - now)
    step, passed = state.current_step, now - state.since
    if step is not None and step.pause_seconds is not None and state.reason != Reason.PAUSED_BY_USER:
        return max(0.0, step.pause_seconds - passed)
    if state.phase == RolloutPhase.PAUSED:
        return None
    length = step.analysis_seconds if step else 0.0
    if passed < length:
        return length - passed
    left = length + deadline - passed
    if state.stable_unavailable_since is not None:
        left = max(left, deadline - (now - state.stable_unavailable_since))
    return max(0.0, left)
