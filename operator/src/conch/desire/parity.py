"""The program of the parity Job: the warm-up's requests to the stable revision and to the candidate."""

from conch.api import InferenceService
from conch.api.numbers import percent
from conch.api.parity import Parity
from conch.decide import Decision
from conch.decide.gates import stable_model
from conch.decide.strategies import find_parity_gate
from conch.desire.jobs import Program, format_host
from conch.observe import Revision
from conch_contract import parity as wire


def find_program(decision: Decision, revision: Revision) -> Program | None:
    """Return the program; None: no comparison of the revision is due."""
    track, stable = decision.track, decision.compared
    gate = find_parity_gate(track.service.spec.rollout.analysis)
    if not stable or gate is None or gate.parity is None:
        return None
    return build_program(track.service, revision, stable, stable_model(track, stable), gate.parity)


def build_program(
    service: InferenceService, candidate: Revision, stable: str, stable_model: str, parity: Parity
) -> Program:
    """Return the program.

    Args:
        service: The service.
        candidate: The candidate, whose manifest has a warm-up: its requests are replayed, within its timeout.
        stable: Name of the stable revision.
        stable_model: Name of the model in the stable revision's Triton; empty: that of the candidate's model.
        parity: Method of the comparison.
    """
    return Program.build(
        candidate,
        f"--stable={format_host(service, stable)}",
        *([f"--stable-model={stable_model}"] if stable_model else []),
        f"--candidate={format_host(service, candidate.name)}",
        f"--parity={to_contract(parity).to_json()}",
    )


def to_contract(parity: Parity) -> wire.Parity:
    """Return the method in the contract's units: fractions."""
    compare = parity.compare
    bound = wire.Parity().bound
    if compare is not None and compare.tolerance is not None:
        bound = float(percent(compare.tolerance))
    elif compare is not None and compare.cosine is not None:
        bound = float(compare.cosine)
    return wire.Parity(method=parity.method, bound=bound, outputs=parity.outputs, requests=parity.requests)
