"""The parity gate, which is evaluated once, before the candidate gets requests of clients.

A Job replays requests to both revisions (`conch.desire.parity`). Its report becomes the verdict, which the status keeps
after the Job. The gate passes when a user promotes the candidate, since another evaluation would have the same result.
"""

from dataclasses import dataclass
from fractions import Fraction

from conch.api.analysis import Gate, GateStatus, Verdict
from conch.api.numbers import percent
from conch.api.parity import Parity
from conch.api.reasons import Reason
from conch.decide.gates.metric import Measurement, Metric, NoMeasurement
from conch.decide.gates.numbers import compare_min, format_moment, format_share
from conch.decide.state import RolloutState
from conch.observe import Finding, Track
from conch.observe.measured import Measured
from conch_contract import Disagreement, ParityReport
from conch_contract.parity import COMPARED


@dataclass(frozen=True)
class UnreadyStable:
    """A stable revision without a ready pod, so that a comparison is impossible."""

    message: str  # the reason
    is_late: bool  # it had none for the progress deadline, and the candidate has waited as long


class ParityMetric(Metric[Parity]):
    """Passes at or above a share of replayed requests. A Job measures it; see `evaluate_parity`."""

    @property
    def bound(self) -> str:
        """The minimum."""
        return f"at least {self.spec.min_agreement}"

    @property
    def pending(self) -> str:
        """The message while the Job runs."""
        return "Waits for the parity Job, which replays requests to both revisions."

    def measure(self, measured: Measured, start: float, now: float) -> NoMeasurement:
        """Return no value, since no counter has it."""
        del measured, start, now
        return NoMeasurement(self.pending)

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


def evaluate_parity(
    gate: Gate, report: ParityReport | None, state: RolloutState, now: float, unready: UnreadyStable | None = None
) -> GateStatus:
    """Return the status of the gate.

    It is skipped if the stable revision had no ready pod for the progress deadline, since a rollback would send all
    requests to that revision.

    Args:
        gate: the parity gate, with its name.
        report: of the Job; None: there is none yet.
        state: of the rollout, with the gate's last status.
        now: seconds since the epoch.
        unready: set if the stable revision has no ready pod.
    """
    before = next((status for status in state.gates if status.name == gate.name), None)
    if before is not None and _is_final(before):
        return before
    if unready is not None and report is None:
        return _without_stable(gate, unready, now)
    return _evaluate(gate, report, now)


def override(status: GateStatus, now: float) -> GateStatus:
    """Return the status of a gate that a user has overridden by promoting the candidate."""
    if status.lets_pass:
        return status
    message = f"A user promoted the candidate past it. {status.message}"
    changes = {"verdict": Verdict.PASSED.value, "evaluated_at": format_moment(now), "message": message}
    return status.model_copy(update=changes)


def find_parity_wait(gate: Gate | None, statuses: tuple[GateStatus, ...]) -> Finding | None:
    """Return the finding while the candidate waits for the gate before its first weight; None: it does not wait."""
    if gate is None:
        return None
    status = next((status for status in statuses if status.name == gate.name), GateStatus.of(gate))
    if status.lets_pass or status.verdict == Verdict.FAILED:
        return None  # a failure ends the rollout
    if status.evaluated_at:
        return Finding(Reason.INCONCLUSIVE, f"Gate {status.name} is inconclusive: {status.message}")
    return Finding(Reason.COMPARING_ANSWERS, f"Gate {status.name}: {status.message}")


def is_parity_pending(gate: Gate | None, state: RolloutState) -> bool:
    """Whether there is a parity gate in force without a result."""
    return gate is not None and not any(s.name == gate.name and _is_final(s) for s in state.gates)


def stable_model(track: Track, stable: str) -> str:
    """Return the model's name in the stable revision's Triton; empty: it has no ControllerRevision."""
    revision = track.revisions.get(stable)
    name = (revision.predictor.get("model") or {}).get("name") if revision else None
    return str(name or track.key.name) if revision else ""


def _without_stable(gate: Gate, unready: UnreadyStable, now: float) -> GateStatus:
    """Return the status while the stable revision has no ready pod."""
    if unready.is_late:
        message = f"Not applied, since the stable revision has no ready pod. {unready.message}"
        return _status(gate, message, Verdict.SKIPPED, evaluated_at=format_moment(now))
    waits = f"Waits for a ready pod of the stable revision. To skip it, promote the candidate. {unready.message}"
    return _status(gate, waits)


def _evaluate(gate: Gate, report: ParityReport | None, now: float) -> GateStatus:
    metric = _metric(gate)
    if report is None:
        return _status(gate, metric.pending)
    found, moment = metric.read(report), format_moment(now)
    if isinstance(found, NoMeasurement):
        return _status(gate, found.message, evaluated_at=moment)
    verdict = Verdict.PASSED if found.passed else Verdict.FAILED
    status = _status(gate, found.message, verdict, evaluated_at=moment)
    changes = {"value": found.value, "samples": found.samples, "failures": int(not found.passed)}
    return status.model_copy(update=changes)


def _status(
    gate: Gate, message: str, verdict: Verdict = Verdict.INCONCLUSIVE, evaluated_at: str | None = None
) -> GateStatus:
    return GateStatus(
        name=GateStatus.of(gate).name,
        bound=_metric(gate).bound,
        verdict=verdict.value,
        evaluated_at=evaluated_at,
        message=message,
    )


def _is_final(status: GateStatus) -> bool:
    """Whether a gate has been evaluated. Earlier versions of Conch wrote the time into another field."""
    return bool(status.evaluated_at) or status.verdict in {Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED}


def _metric(gate: Gate) -> ParityMetric:
    assert gate.parity is not None  # noqa: S101  only parity gates are evaluated here
    return ParityMetric(gate, gate.parity)


def _describe_rest(report: ParityReport) -> str:
    """Return the largest difference of a comparison, and the number of requests that were not compared."""
    worst = f" Largest difference: {_describe(report.worst)}." if report.worst else ""
    out = report.requests - report.compared
    return worst + (f" {out} of {report.requests} were left out. {report.message}".rstrip() if out else "")


def _describe(worst: Disagreement) -> str:
    place = f", output {worst.output!r}" if worst.output else ""
    place += f" at index {worst.index}" if worst.index is not None else ""
    how = f" ({worst.how})" if worst.how else ""
    return f"{worst.request}{place}: {worst.stable} by the stable revision, {worst.candidate} by the candidate{how}"
