"""Whether a candidate answers as the stable revision does: the parity gate, judged once, before its first share.

A Job replays requests to both (`conch.desire.parity`); its report becomes the gate's verdict, which the status
remembers when the Job is gone. Who promotes a candidate that it holds passes it: asked again, it would say the same.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from conch.api import InferenceService, RolloutStatus
from conch.api.analysis import Gate, GateStatus, Verdict
from conch.api.numbers import percent
from conch.decide.gates import bound_of, moment, percentage
from conch.observe import Trouble, World
from conch_contract import Disagreement, ParityReport
from conch_contract.parity import COMPARED

COMPARING: Final = "ComparingAnswers"


@dataclass(frozen=True)
class SilentStable:
    """A stable revision without a ready pod, with which no candidate can be compared."""

    message: str  # why
    is_late: bool  # whether it has had none for the progress deadline, and the candidate has waited as long


def parity_status(
    gate: Gate, report: ParityReport | None, memory: RolloutStatus, now: float, silent: SilentStable | None = None
) -> GateStatus:
    """Return what the gate says.

    It is skipped when the stable revision has had no ready pod for the progress deadline: to roll back would mean to
    send all requests to that revision.

    Args:
        gate: the parity gate, with its name.
        report: what the Job told, None while it has not.
        memory: of the rollout; with what the gate said before.
        now: seconds since the epoch.
        silent: why the stable revision has no ready pod; None: it has one.
    """
    before = next((status for status in memory.gates if status.name == gate.name), None)
    if before is not None and before.judged:
        return before
    return _without_stable(gate, silent, now) if silent is not None and report is None else _judged(gate, report, now)


def _without_stable(gate: Gate, silent: SilentStable, now: float) -> GateStatus:
    """Return what the gate says while the stable revision has no ready pod."""
    status = GateStatus.of(gate).model_copy(update={"bound": bound_of(gate)})
    if not silent.is_late:
        waits = f"Waits for a ready pod of the stable revision. To skip it, promote the candidate. {silent.message}"
        return status.model_copy(update={"message": waits})
    told = f"Not applied, since the stable revision has no ready pod. {silent.message}"
    return status.model_copy(update={"verdict": Verdict.SKIPPED.value, "judged": moment(now), "message": told})


def overruled(status: GateStatus, now: float) -> GateStatus:
    """Return what the gate says of a candidate that somebody promoted past it."""
    if status.lets_pass:
        return status
    told = f"Somebody promoted the candidate past it. {status.message}"
    return status.model_copy(update={"verdict": Verdict.PASSED.value, "judged": moment(now), "message": told})


def parity_waits(gate: Gate | None, statuses: tuple[GateStatus, ...]) -> Trouble | None:
    """Return what a share of the requests still waits for."""
    if gate is None:
        return None
    said = next((status for status in statuses if status.name == gate.name), GateStatus.of(gate))
    if said.lets_pass or said.verdict == Verdict.FAILED:
        return None  # a failure is told as such
    if said.judged:
        return Trouble("Inconclusive", f"Gate {said.name} cannot tell: {said.message}")
    return Trouble(COMPARING, f"Gate {said.name}: {said.message}")


def compares(service: InferenceService, memory: RolloutStatus) -> bool:
    """Whether the Job has something to find out yet."""
    gate = service.spec.rollout.parity
    return gate is not None and not any(status.name == gate.name and status.judged for status in memory.gates)


def stable_model(world: World, stable: str) -> str:
    """Return the model's name in the stable revision's Triton; empty where nobody knows of another."""
    revision = world.revisions.get(stable)
    said = (revision.predictor.get("model") or {}).get("name") if revision else None
    return str(said or world.key.name) if revision else ""


def _judged(gate: Gate, report: ParityReport | None, now: float) -> GateStatus:
    assert gate.parity is not None  # noqa: S101  the caller's choice
    status = GateStatus.of(gate).model_copy(update={"bound": bound_of(gate)})
    if report is None:
        waits = "Waits for the parity Job, which replays requests to both revisions."
        return status.model_copy(update={"message": waits})
    judged = status.model_copy(update={"judged": moment(now)})
    if report.reason != COMPARED or not report.compared:
        return judged.model_copy(update={"message": f"{report.reason}: {report.message}"})
    agreement = Fraction(report.agreed, report.compared)
    good = agreement >= percent(gate.parity.min_agreement)
    value = percentage(agreement)
    requests = f"{report.compared} replayed request" + ("s" if report.compared != 1 else "")
    told = f"{value} of {requests} agree; {bound_of(gate)} is asked.{_rest(report)}"
    return judged.model_copy(
        update={
            "verdict": (Verdict.PASSED if good else Verdict.FAILED).value,
            "value": value,
            "samples": report.compared,
            "failures": int(not good),
            "message": told,
        }
    )


def _rest(report: ParityReport) -> str:
    """What else is worth knowing of a comparison: the worst of it, and what was no part of it."""
    worst = f" The worst: {_words(report.worst)}." if report.worst else ""
    out = report.requests - report.compared
    return worst + (f" {out} of {report.requests} were left out. {report.message}".rstrip() if out else "")


def _words(worst: Disagreement) -> str:
    place = f", output {worst.output!r}" if worst.output else ""
    place += f" at index {worst.index}" if worst.index is not None else ""
    how = f" ({worst.how})" if worst.how else ""
    return f"to {worst.request}{place} the stable revision says {worst.stable}, the candidate {worst.candidate}{how}"
