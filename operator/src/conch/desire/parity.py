"""The parity Job of a candidate: the warm-up's requests to the stable revision and to it, and the answers compared.

Its result is its pod's termination message (`conch.observe.parity` reads it, `conch.decide.gates` evaluates it).
Its pod belongs to the service, but no Service and no disruption budget of serving pods selects it: as the warm-up's,
it is named otherwise (LABEL_NAME), and LABEL_PARITY tells whose it is.
"""

from conch.api import InferenceService
from conch.api.kinds import JOB
from conch.api.meta import Manifest, child
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch.api.numbers import percent
from conch.api.parity import Parity
from conch.desire.jobs import Program, job_spec
from conch.observe import Revision
from conch_contract import names
from conch_contract import parity as wire


def parity_job_name(revision: str) -> str:
    """Return the name of a candidate's parity Job."""
    return f"{revision}-parity"


def parity_job(
    service: InferenceService, candidate: Revision, stable: str, stable_model: str, asked: Parity
) -> Manifest:
    """Build the Job that compares a candidate's answers with those of the stable revision.

    `stable_model` is the model's name in the stable revision's Triton; empty: as in the candidate's. The candidate's
    manifest must ask for a warm-up: its requests are replayed, within its timeout.
    """
    host = f"{{}}.{service.metadata.namespace}.svc"
    command = (
        "conch-parity",
        f"--stable={host.format(stable)}",
        *([f"--stable-model={stable_model}"] if stable_model else []),
        f"--candidate={host.format(candidate.name)}",
        f"--asked={in_contract(asked).to_json()}".replace("$", "$$"),  # Kubernetes expands $(NAME) in commands
    )
    program = Program(names.PARITY_CONTAINER, command, parity_labels(service.metadata.name, candidate.name))
    head = child(service, JOB, parity_job_name(candidate.name), candidate.name)
    head["metadata"]["labels"] |= {names.LABEL_PARITY: candidate.name}
    return {**head, "spec": job_spec(program, candidate.template, candidate.manifest)}


def parity_labels(service: str, revision: str) -> dict[str, str]:
    """Return the labels of the Job's pod."""
    return {
        LABEL_NAME: "conch-parity",
        LABEL_INSTANCE: service,
        LABEL_MANAGED_BY: "conch",
        names.LABEL_SERVICE: service,
        names.LABEL_PARITY: revision,
    }


def in_contract(asked: Parity) -> wire.Parity:
    """Return the user's words in the contract's units: fractions."""
    said = asked.compare
    bound = wire.Parity().bound
    if said is not None and said.tolerance is not None:
        bound = float(percent(said.tolerance))
    elif said is not None and said.cosine is not None:
        bound = float(said.cosine)
    return wire.Parity(way=asked.way, bound=bound, outputs=asked.outputs, requests=asked.requests)
