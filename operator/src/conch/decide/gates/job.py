"""Gates that a revision Job measures once, before the candidate gets requests of clients.

The Job's report becomes the verdict, which the status keeps after the Job. Another evaluation would have the same
result, so a user who promotes the candidate overrides it.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from conch.api.analysis import GateStatus, Verdict
from conch.api.gate_metric import JobGateMetric
from conch.api.reasons import Reason
from conch.decide.gates.metric import Measurement, Metric, NoMeasurement
from conch.decide.gates.numbers import format_moment
from conch.decide.state import RolloutState
from conch.observe import Finding, Track
from conch.observe.measured import Measured
from conch_contract import JobReport
from conch_contract.revision_jobs import RevisionJob

JobSpec = TypeVar("JobSpec", bound=JobGateMetric)
Report = TypeVar("Report", bound=JobReport)


@dataclass(frozen=True)
class UnreadyStable:
    """A stable revision without a ready pod, so that a comparison is impossible."""

    message: str  # the reason
    is_late: bool  # it had none for the progress deadline, and the candidate has waited as long


@dataclass(frozen=True)
class JobMetric(Metric[JobSpec], Generic[JobSpec, Report]):
    """A metric of one gate that a revision Job measures.

    Attributes:
        job: The row of the Job.
        waiting: The reason of a rollout that waits for the measurement.
        expectation: The condition for the first request of clients, as in "until 1 pod is ready, its answers agree".
    """

    job: ClassVar[RevisionJob[JobReport]]
    waiting: ClassVar[Reason]
    expectation: ClassVar[str]

    def measure(self, measured: Measured, start: float, now: float) -> NoMeasurement:
        """Return no value, since no counter has it."""
        del measured, start, now
        return NoMeasurement(self.pending)

    @abstractmethod
    def read(self, report: Report) -> Measurement | NoMeasurement:
        """Return the value of a report of the Job."""

    def find_report(self, track: Track, candidate: str) -> Report | None:
        """Return the report of the candidate's Job; None while there is none."""
        found: Report | None = track.find_report(self.job, candidate)  # type: ignore[assignment]  # the row has the type
        return found

    def is_pending(self, state: RolloutState) -> bool:
        """Whether the rollout has no result of the gate."""
        return not any(status.name == self.gate.name and _is_final(status) for status in state.gates)

    def evaluate(
        self, report: Report | None, state: RolloutState, now: float, unready: UnreadyStable | None = None
    ) -> GateStatus:
        """Return the status of the gate.

        A gate that needs the stable revision is skipped if that had no ready pod for the progress deadline, since a
        rollback would send all requests to it.

        Args:
            report: Of the Job; None: there is none yet.
            state: Of the rollout, with the gate's last status.
            now: Seconds since the epoch.
            unready: Set if the stable revision has no ready pod.
        """
        before = next((status for status in state.gates if status.name == self.gate.name), None)
        if before is not None and _is_final(before):
            return before
        if report is not None:
            return self._evaluate_report(report, now)
        if unready is not None and self.spec.needs_stable:
            return self._without_stable(unready, now)
        return self._status(self.pending)

    def find_wait(self, statuses: Iterable[GateStatus]) -> Finding | None:
        """Return the finding while the candidate waits for the gate before its first weight; None: it does not wait."""
        name = self.gate.name
        status = next((status for status in statuses if status.name == name), GateStatus.of(self.gate))
        if status.lets_pass or status.verdict == Verdict.FAILED:
            return None  # a failure ends the rollout
        if status.evaluated_at:
            return Finding(Reason.INCONCLUSIVE, f"Gate {status.name} is inconclusive: {status.message}")
        return Finding(self.waiting, f"Gate {status.name}: {status.message}")

    def _without_stable(self, unready: UnreadyStable, now: float) -> GateStatus:
        """Return the status while the stable revision has no ready pod."""
        if unready.is_late:
            message = f"Not applied, since the stable revision has no ready pod. {unready.message}"
            return self._status(message, Verdict.SKIPPED, evaluated_at=format_moment(now))
        waits = f"Waits for a ready pod of the stable revision. To skip it, promote the candidate. {unready.message}"
        return self._status(waits)

    def _evaluate_report(self, report: Report, now: float) -> GateStatus:
        """Return the status after a report."""
        found, moment = self.read(report), format_moment(now)
        if isinstance(found, NoMeasurement):
            return self._status(found.message, evaluated_at=moment)
        verdict = Verdict.PASSED if found.passed else Verdict.FAILED
        status = self._status(found.message, verdict, evaluated_at=moment)
        changes = {"value": found.value, "samples": found.samples, "failures": int(not found.passed)}
        return status.model_copy(update=changes)

    def _status(
        self, message: str, verdict: Verdict = Verdict.INCONCLUSIVE, evaluated_at: str | None = None
    ) -> GateStatus:
        return GateStatus(
            name=GateStatus.of(self.gate).name,
            bound=self.bound,
            verdict=verdict.value,
            evaluated_at=evaluated_at,
            message=message,
        )


def override(status: GateStatus, now: float) -> GateStatus:
    """Return the status of a gate that a user has overridden by promoting the candidate."""
    if status.lets_pass:
        return status
    message = f"A user promoted the candidate past it. {status.message}"
    changes = {"verdict": Verdict.PASSED.value, "evaluated_at": format_moment(now), "message": message}
    return status.model_copy(update=changes)


def _is_final(status: GateStatus) -> bool:
    """Whether a gate has been evaluated. Earlier versions of Conch wrote the time into another field."""
    return bool(status.evaluated_at) or status.verdict in {Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED}
