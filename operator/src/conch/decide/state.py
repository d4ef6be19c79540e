"""The state of a rollout: what the status keeps of it from one reconcile to the next, as a typed value."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self, TypeVar

from conch.api import Admission, RolloutPhase, RolloutStatus, StepInForce
from conch.api.analysis import GateStatus
from conch.api.names import StrategyName
from conch.api.times import format_time, parse_time

_Member = TypeVar("_Member", bound=StrEnum)
_UNSET: Final = 0.0  # a time that the status does not have
_FIRST: Final = 1.0


@dataclass(frozen=True)
class RolloutState:
    """The rollout of a candidate. Times are seconds since the epoch, in whole seconds."""

    revision: str  # the candidate
    capacity: int  # ready pods that carried all requests when the rollout began; they are kept until it ends
    started: float
    since: float  # when the current step began
    strategy: StrategyName = StrategyName.PROGRESSIVE
    phase: RolloutPhase = RolloutPhase.PROGRESSING
    admission: Admission | None = None  # None: its pods need none
    steps: tuple[StepInForce, ...] = ()
    swap_obstacle: str = ""  # why the strategy is not Swap, which the spec requests
    step: int = 0  # index of the current step in `steps`; their number when all are passed
    weight: int = 0  # the candidate's desired share of the requests, in percent
    observed_weight: int = 0
    unavailable_since: float | None = None  # a candidate with a weight has had no ready pod
    stable_unavailable_since: float | None = None  # a gate waits for a ready pod of the stable revision
    reason: str = ""  # why it waits, or why it failed
    message: str = ""
    gates: tuple[GateStatus, ...] = ()
    request: str = ""  # the last request of a user that had an effect

    @classmethod
    def begin(cls, revision: str, capacity: int, now: float) -> Self:
        """Return the state of a rollout that begins."""
        return cls(revision, capacity, started=whole(now), since=whole(now))

    @classmethod
    def parse(cls, status: RolloutStatus) -> Self:
        """Read the state from the status.

        A value that is not known is the default: Progressing, Progressive, or Unknown of an admission.
        """
        return cls(
            revision=status.revision,
            capacity=status.capacity,
            started=_seconds(status.started) or _UNSET,
            since=_seconds(status.since) or _UNSET,
            strategy=_member(StrategyName, status.strategy, StrategyName.PROGRESSIVE),
            phase=_member(RolloutPhase, status.phase, RolloutPhase.PROGRESSING),
            admission=_member(Admission, status.admission, Admission.UNKNOWN) if status.admission else None,
            steps=status.steps,
            swap_obstacle=status.swap_obstacle,
            step=status.step,
            weight=status.weight,
            observed_weight=status.observed_weight,
            unavailable_since=_seconds(status.unavailable_since),
            stable_unavailable_since=_seconds(status.stable_unavailable_since),
            reason=status.reason,
            message=status.message,
            gates=status.gates,
            request=status.request,
        )

    def to_status(self) -> RolloutStatus:
        """Return it as the status has it."""
        return RolloutStatus(
            revision=self.revision,
            strategy=self.strategy.value,
            phase=self.phase.value,
            steps=self.steps,
            swap_obstacle=self.swap_obstacle,
            step=self.step,
            since=_text(self.since) or "",
            started=_text(self.started) or "",
            weight=self.weight,
            observed_weight=self.observed_weight,
            unavailable_since=_text(self.unavailable_since),
            stable_unavailable_since=_text(self.stable_unavailable_since),
            capacity=self.capacity,
            admission=self.admission.value if self.admission else "",
            reason=self.reason,
            message=self.message,
            gates=self.gates,
            request=self.request,
        )

    @property
    def has_failed(self) -> bool:
        """Whether the candidate was rolled back."""
        return self.phase == RolloutPhase.FAILED

    @property
    def awaits_admission(self) -> bool:
        """Whether the candidate has no pods until it is known that their GPUs are free."""
        return self.admission == Admission.PENDING and not self.has_failed

    @property
    def is_under_way(self) -> bool:
        """Whether the candidate has pods, or gets some."""
        return not self.has_failed and not self.awaits_admission

    @property
    def current_step(self) -> StepInForce | None:
        """The current step; None when all are passed."""
        return self.steps[self.step] if 0 <= self.step < len(self.steps) else None

    @property
    def is_at_pause(self) -> bool:
        """Whether the current step is a pause."""
        return self.current_step is not None and self.current_step.pause is not None

    def at_step(self, step: int, now: float) -> Self:
        """Return the state at the beginning of a step."""
        return replace(self, step=step, since=whole(now))


def whole(now: float) -> float:
    """Return a moment in the whole seconds that a status can hold."""
    return float(int(now))


def _seconds(text: str | None) -> float | None:
    """Return a time of a status; one that another writer set before 1970 is the first second of it."""
    return max(parse_time(text), _FIRST) if text else None


def _text(moment: float | None) -> str | None:
    return format_time(moment) if moment else None


def _member(kind: type[_Member], text: str, default: _Member) -> _Member:
    return kind(text) if text in set(kind) else default
