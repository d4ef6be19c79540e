"""The gates in force of a rollout: their results at one moment, and the Jobs that are due."""

from dataclasses import dataclass
from typing import Any

from conch.api.analysis import GateStatus
from conch.decide.context import RolloutContext
from conch.decide.diagnosis import diagnose, not_answering
from conch.decide.gates import JobMetric, UnreadyStable, evaluate_all, list_job_metrics
from conch.decide.jobs import find_refused_job
from conch.decide.rollout.waits import is_stable_late, track_stable
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.observe import Finding
from conch.observe.measured import Measured
from conch_contract import JobReport
from conch_contract.revision_jobs import RevisionJob


@dataclass(frozen=True)
class GateResults:
    """The results of the gates in force.

    Attributes:
        statuses: One for each gate that can be evaluated; of a candidate without requests, those that Jobs measure.
        once: Names of the gates that are evaluated once for all steps.
        wait: Why a gate holds the candidate's first request of clients; None: none does.
        stable_waits: Reasons of the gates that wait for a ready pod of the stable revision.
    """

    statuses: tuple[GateStatus, ...] = ()
    once: frozenset[str] = frozenset()
    wait: Finding | None = None
    stable_waits: frozenset[str] = frozenset()


def evaluate_gates(context: RolloutContext, state: RolloutState) -> tuple[RolloutState, GateResults]:
    """Return the state, with the time since when a gate waits for the stable revision, and the results."""
    if state.has_failed:
        return state, GateResults()
    track, wanted, rollout = context.track, context.wanted, context.service.spec.rollout
    gates = strategy_of(state, rollout).gates(rollout)
    metrics = list_job_metrics(gates)
    waiting = [metric for metric in metrics if _waits_for_stable(context, state, metric)]
    state = track_stable(state, track.now, is_awaited=bool(waiting), is_ready=_is_stable_ready(context))
    unready = _find_unready_stable(context, state)
    by_jobs = tuple(metric.evaluate(metric.find_report(track, wanted), state, track.now, unready) for metric in metrics)
    others = [gate for gate in gates if state.weight and not gate.is_measured_once]
    measured = track.measured.get(wanted, Measured())
    evaluations = evaluate_all(others, measured, state.gates, track.now, state.since)
    return state, GateResults(
        statuses=(*by_jobs, *(evaluation.status for evaluation in evaluations)),
        once=frozenset(status.name for status in by_jobs),
        wait=_find_wait(context, metrics, by_jobs),
        stable_waits=frozenset(metric.waiting for metric in waiting),
    )


def find_due_job(context: RolloutContext, state: RolloutState) -> RevisionJob[JobReport] | None:
    """Return the Job of a gate that is due. One runs at a time, since the requests of another would disturb it.

    Args:
        context: The two revisions, of which the candidate is warm and has the pods for its next weight.
        state: Of a rollout under way.
    """
    rollout = context.service.spec.rollout
    metrics = list_job_metrics(strategy_of(state, rollout).gates(rollout))
    pending = (metric for metric in metrics if metric.is_pending(state))
    runnable = (metric.job for metric in pending if not metric.spec.needs_stable or _is_stable_ready(context))
    return next(runnable, None)


def _find_wait(
    context: RolloutContext, metrics: tuple[JobMetric[Any, Any], ...], statuses: tuple[GateStatus, ...]
) -> Finding | None:
    """Return why a gate holds the candidate's first request: a refused pod of its Job comes first."""
    for metric in metrics:
        if (wait := metric.find_wait(statuses)) is not None:
            return find_refused_job(context.track, context.wanted, metric.job) or wait
    return None


def _find_unready_stable(context: RolloutContext, state: RolloutState) -> UnreadyStable | None:
    """Return why the stable revision has no ready pod; None: it has one."""
    track, stable = context.track, context.stable
    if _is_stable_ready(context):
        return None
    why = diagnose(track, stable) or not_answering(track, stable)
    return UnreadyStable(why.message, is_stable_late(state, context.service.spec.rollout, track.now))


def _waits_for_stable(context: RolloutContext, state: RolloutState, metric: JobMetric[Any, Any]) -> bool:
    """Whether a gate has yet to be measured, and its Job needs the stable revision, which has no ready pod."""
    if not metric.spec.needs_stable or _is_stable_ready(context) or not metric.is_pending(state):
        return False
    return metric.find_report(context.track, context.wanted) is None


def _is_stable_ready(context: RolloutContext) -> bool:
    return context.track.ready(context.stable) > 0
