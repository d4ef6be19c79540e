"""The warm-up Job of a revision: the gate before its first share of the requests.

Its result is its pod's termination message (`conch.observe.warmup` reads it). Its pod belongs to the service, but is
named otherwise than serving pods (LABEL_NAME), so that no Service and no disruption budget of theirs selects it;
LABEL_WARMUP tells whose it is.
"""

from conch.api import InferenceService
from conch.api.kinds import JOB
from conch.api.meta import Manifest, child
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch.desire.jobs import Program, job_spec
from conch.observe.snapshot import Body
from conch_contract import names


def warmup_job_name(revision: str) -> str:
    """Return the name of a revision's warm-up Job."""
    return f"{revision}-warmup"


def warmup_job(service: InferenceService, revision: str, template: Body, manifest: str, pods: int) -> Manifest:
    """Build the Job that warms a revision's pods through its Service.

    `template` and `manifest` are the revision's own, as its ControllerRevision keeps them; `pods` is the number
    to reach. The manifest must ask for a warm-up.
    """
    host = f"{revision}.{service.metadata.namespace}.svc"
    program = Program(
        names.WARMUP_CONTAINER,
        ("conch-warmup", f"--host={host}", f"--pods={pods}"),
        warmup_labels(service.metadata.name, revision),
    )
    head = child(service, JOB, warmup_job_name(revision), revision)
    return {**head, "spec": job_spec(program, template, manifest)}


def warmup_labels(service: str, revision: str) -> dict[str, str]:
    """Return the labels of the Job's pod."""
    return {
        LABEL_NAME: "conch-warmup",
        LABEL_INSTANCE: service,
        LABEL_MANAGED_BY: "conch",
        names.LABEL_SERVICE: service,
        names.LABEL_WARMUP: revision,
    }
