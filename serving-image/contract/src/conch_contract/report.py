"""The agent's report: what a pod serves, and why not. Agent to operator."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from conch_contract._base import Count, Wire
from conch_contract.warmup import WarmupReport

# The reasons of a ModelWarning about requests that fail; those of the others are served.
CALLEE_MISSING: Final = "CalleeMissing"
SEQUENCE_STATE: Final = "SequenceState"  # where the requests of a sequence may reach more than one pod
SEQUENCE_STATE_MESSAGE: Final = (
    "The model has sequence_batching, and Triton keeps the state of a sequence in one pod. With more than one pod, "
    "requests of a sequence reach different pods and fail. Set traffic.consistentHash at a Gateway of Envoy Gateway, "
    "or minReplicas to 1 without maxReplicas; and change the model while no sequence is open."
)


class ModelState(StrEnum):
    """Where a model (or one version of it) stands in this pod."""

    PENDING = "Pending"
    FETCHING = "Fetching"
    LOADING = "Loading"
    WARMING = "Warming"
    READY = "Ready"
    FAILED = "Failed"


class VersionReport(Wire):
    """One version as Triton's repository index tells it."""

    version: Count
    state: ModelState
    reason: str = ""


class ModelWarning(Wire):
    """A fact about a model that does not stop it: a CamelCase reason, and a sentence for the user."""

    reason: str
    message: str


class ModelReport(Wire):
    """One model of the manifest in this pod.

    `reason` is a short CamelCase word (`BucketNotFound`, `AccessDenied`, `Empty`, `LoadFailed`, ...);
    `message` is the sentence a user reads, Triton's own words where Triton spoke.
    `digest` is `sha256:` over the sorted (path, sha256) pairs of what was fetched.
    `object_versions` are the versions in which the bucket has these files, by path below storageUri (empty: storageUri
    is the object itself). They are absent where the bucket has no versioning, and once the manifest has them.
    `warmup_digest` is over (key, sha256) of the warm-up's ConfigMap; absent where there is none.
    `warnings` are known once the model's files are laid out (that about the warm-up's ConfigMap: once it warms up), and
    stay the same for the same content.
    `warmup` is the last warm-up in this pod, absent where none was asked for or none has ended yet.
    """

    name: str
    state: ModelState
    reason: str = ""
    message: str = ""
    versions: tuple[VersionReport, ...] = ()
    digest: str = ""
    object_versions: dict[str, str] = Field(default_factory=dict)
    bytes_fetched: Count = 0
    bytes_total: Count = 0
    fetch_seconds: float = 0.0
    load_seconds: float = 0.0
    warnings: tuple[ModelWarning, ...] = ()
    warmup: WarmupReport | None = None
    warmup_digest: str = ""


class AgentReport(Wire):
    """All models of one pod.

    `reason` and `message` are of the pod as a whole: a manifest that is missing or cannot be read.
    """

    ready: bool = False
    reason: str = ""
    message: str = ""
    models: tuple[ModelReport, ...] = ()
