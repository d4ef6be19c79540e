"""Evaluation of the gates of a rollout: pure functions of measurements.

A gate is evaluated at most once in its interval, on the requests after its last evaluation, and not before there are
enough of them. Without a measurement its verdict is Inconclusive, never Passed. (So it is in Argo Rollouts.)
"""

from collections.abc import Iterable
from dataclasses import dataclass

from conch.api.analysis import Gate, GateStatus, Verdict, named
from conch.api.times import parse_time
from conch.decide.gates.metric import Measurement, NoMeasurement
from conch.decide.gates.numbers import format_moment
from conch.decide.gates.registry import metric_of
from conch.observe.measured import Measured


@dataclass(frozen=True)
class Evaluation:
    """The status of a gate after an evaluation, and the time to the next one."""

    status: GateStatus
    wait: float | None  # seconds; None: never, the gate has failed

    @property
    def verdict(self) -> Verdict:
        """Passed, Failed or Inconclusive; an unknown verdict of an older status is Inconclusive."""
        return Verdict(self.status.verdict) if self.status.verdict in set(Verdict) else Verdict.INCONCLUSIVE


def evaluate_all(
    gates: Iterable[Gate], measured: Measured, before: Iterable[GateStatus], now: float, since: float = 0.0
) -> tuple[Evaluation, ...]:
    """Evaluate each gate of a rollout; see `evaluate`."""
    known = {status.name: status for status in before}
    return tuple(evaluate(gate, measured, known.get(gate.name or ""), now, since) for gate in named(gates))


def evaluate(gate: Gate, measured: Measured, before: GateStatus | None, now: float, since: float = 0.0) -> Evaluation:
    """Evaluate one gate.

    Args:
        gate: with its name (see `named`) where there are several.
        measured: the measurements of the revision; results of Prometheus queries by the gates' names.
        before: the status after the last evaluation; None: there was none.
        now: seconds since the epoch.
        since: the start of a step, in seconds since the epoch. Earlier measurements and verdicts do not count.
    """
    known = before or GateStatus.of(gate)
    if known.verdict == Verdict.FAILED:
        return Evaluation(known, None)
    metric = metric_of(gate)
    evaluated = parse_time(known.evaluated_at) if known.evaluated_at else 0.0
    left = evaluated + gate.interval_seconds - now
    found = NoMeasurement(metric.pending) if left > 0 else metric.measure(measured, max(evaluated, since), now)
    if isinstance(found, Measurement):
        return Evaluation(_measured(gate, metric.bound, known, found, now), gate.interval_seconds)
    wait = left if left > 0 else gate.interval_seconds
    if not found.is_error and known.value and evaluated >= since:  # the last measurement of this step is still valid
        return Evaluation(known, wait)
    return Evaluation(_inconclusive(known, metric.bound, found), wait)


def bound_of(gate: Gate) -> str:
    """Return the bound of a gate as text, such as "at least 99.9%"."""
    return metric_of(gate).bound


def _measured(gate: Gate, bound: str, known: GateStatus, found: Measurement, now: float) -> GateStatus:
    """Return the status after a measurement. A failure within failureLimit is Inconclusive, not Passed."""
    failures = known.failures + (not found.passed)
    verdict, message = Verdict.PASSED, found.message
    if not found.passed:
        verdict = Verdict.FAILED if failures > gate.failure_limit else Verdict.INCONCLUSIVE
        message = f"{message} (failures: {failures}, allowed: {gate.failure_limit})"
    return GateStatus(
        name=known.name,
        verdict=verdict.value,
        value=found.value,
        bound=bound,
        samples=found.samples,
        failures=failures,
        evaluated_at=format_moment(now),
        message=f"{message}.",
    )


def _inconclusive(known: GateStatus, bound: str, found: NoMeasurement) -> GateStatus:
    """Return the status without a measurement. The failures and the time of the last evaluation stay."""
    return GateStatus(
        name=known.name,
        bound=bound,
        failures=known.failures,
        evaluated_at=known.evaluated_at,
        message=found.message,
    )
