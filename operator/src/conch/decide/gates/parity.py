"""The share of replayed requests to which candidate and stable revision answer alike.

A Job replays requests to both revisions (`conch.desire.parity`).
"""

from fractions import Fraction
from typing import ClassVar

from conch.api.numbers import percent
from conch.api.parity import Parity
from conch.api.reasons import Reason
from conch.decide.gates.job import JobMetric
from conch.decide.gates.metric import Measurement, NoMeasurement
from conch.decide.gates.numbers import compare_min, format_share
from conch_contract import Disagreement, JobReport, ParityReport
from conch_contract.parity import COMPARED
from conch_contract.revision_jobs import PARITY, RevisionJob


class ParityMetric(JobMetric[Parity, ParityReport]):
    """Passes at or above a share of replayed requests."""

    job: ClassVar[RevisionJob[JobReport]] = PARITY
    waiting: ClassVar[Reason] = Reason.COMPARING_ANSWERS
    expectation: ClassVar[str] = "its answers agree with the stable revision's"

    @property
    def bound(self) -> str:
        """The minimum."""
        return f"at least {self.spec.min_agreement}"

    @property
    def pending(self) -> str:
        """The message while the Job runs."""
        return "Waits for the parity Job, which replays requests to both revisions."

    def read(self, report: ParityReport) -> Measurement | NoMeasurement:
        """Return the agreement of a report."""
        if report.reason != COMPARED or not report.compared:
            return NoMeasurement(f"{report.reason}: {report.message}")
        share = Fraction(report.agreed, report.compared)
        value, passed = format_share(share), share >= percent(self.spec.min_agreement)
        requests = f"{report.compared} replayed request" + ("s" if report.compared != 1 else "")
        bound = compare_min(self.spec.min_agreement, passed=passed)
        message = f"Agreement {value} over {requests} {bound}.{_describe_rest(report)}"
        return Measurement(passed, value, message, report.compared)


def _describe_rest(report: ParityReport) -> str:
    """Return the largest difference of a comparison, and the number of requests that were not compared."""
    worst = f" Largest difference: {_describe(report.worst)}." if report.worst else ""
    out = report.requests - report.compared
    return worst + (f" {out} of {report.requests} were left out. {report.message}".rstrip() if out else "")


def _describe(worst: Disagreement) -> str:
    place = f", output {worst.output!r}" if worst.output else ""
    place += f" at index {worst.index}" if worst.index is not None else ""
    how = f" ({worst.how})" if worst.how else ""
    step = f"; the step {worst.step!r} is the first that answers the same inputs differently" if worst.step else ""
    answers = f"{worst.stable} by the stable revision, {worst.candidate} by the candidate"
    return f"{worst.request}{place}: {answers}{how}{step}"
