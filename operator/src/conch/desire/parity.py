"""The program of the parity Job: the warm-up's requests to the stable revision and to the candidate."""

from conch.api import InferenceService
from conch.api.numbers import percent
from conch.api.parity import Parity
from conch.decide import Decision
from conch.desire.jobs import Program, format_host
from conch.observe import Revision, Track
from conch_contract import parity as wire


def build_due_program(decision: Decision, revision: Revision) -> Program:
    """Return the program for the candidate and the revision that carries the service, which is the stable one."""
    track, stable = decision.track, decision.serving
    spec = next(gate.parity for gate in track.service.spec.rollout.analysis if gate.parity is not None)
    return build_program(track.service, revision, stable, _find_model(track, stable), spec)


def _find_model(track: Track, revision: str) -> str:
    """Return the name of the model that clients call in a revision; empty: it has no ControllerRevision."""
    stored = track.revisions.get(revision)
    return stored.entry if stored else ""


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
