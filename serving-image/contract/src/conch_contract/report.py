"""The agent's report of the models of a pod. From agent to operator."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Protocol

from pydantic import Field

from conch_contract._base import Count, Wire
from conch_contract.warmup import WarmupReport

# Reasons of the warnings after which requests fail. With the other warnings all requests are served.
CALLEE_MISSING: Final = "CalleeMissing"
SEQUENCE_STATE: Final = "SequenceState"  # the requests of a sequence may reach more than one pod
MODEL_NOT_SERVED: Final = "ModelNotServed"  # a model has failed, and its pod is ready without it
CRASH_SUSPECTED: Final = "CrashSuspected"  # one of several models ends Triton while it answers requests
SERVED_FROM_CACHE: Final = "ServedFromCache"  # the store is away, and the cache has what it had last
# Those that end without a change of the pod's readiness.
TRANSIENT_WARNINGS: Final = frozenset({MODEL_NOT_SERVED, CRASH_SUSPECTED, SERVED_FROM_CACHE})
LOAD_CRASHED: Final = "LoadCrashed"  # the model ended Triton, each time that it was loaded
REQUESTS_CRASHED: Final = "RequestsCrashed"  # the model ended Triton, each time that it had answered some requests
# Reasons of a model that ended Triton, and with it all models of its pod.
CRASHED: Final = frozenset({LOAD_CRASHED, REQUESTS_CRASHED})
SEQUENCE_STATE_MESSAGE: Final = (
    "The model has sequence_batching, and Triton keeps the state of a sequence in one pod. With more than one pod, "
    "requests of a sequence reach different pods and fail. Set traffic.consistentHash at a Gateway of Envoy Gateway, "
    "or minReplicas to 1 without maxReplicas; and change the model while no sequence is open."
)


# Bounds of what ends up in names, annotations and times: identities are hashes.
Identity = Annotated[str, Field(max_length=128)]
_YEAR_9999: Final = 253_402_300_799  # the last second that a timestamp can have


class ModelState(StrEnum):
    """State of a model, or of one version of it, in a pod."""

    PENDING = "Pending"
    FETCHING = "Fetching"
    LOADING = "Loading"
    WARMING = "Warming"
    READY = "Ready"
    FAILED = "Failed"


class VersionReport(Wire):
    """A version of a model in Triton's repository index."""

    version: Count
    state: ModelState
    reason: str = ""


class ModelWarning(Wire):
    """A warning about a model that does not hold its pod: a CamelCase reason, and a sentence for the user."""

    reason: str
    message: str


class ConfigOrigin(StrEnum):
    """Origin of a value in the configuration of a model, as Triton uses it."""

    SPEC = "Spec"  # the InferenceService sets it
    FILE = "File"  # the model's config.pbtxt has it
    CONCH = "Conch"  # derived from modelFormat, or from the steps of a pipeline
    TRITON = "Triton"  # completed by Triton, or its default


class ConfigValue(Wire):
    """A value in the configuration of a model.

    Attributes:
        field: Its path in config.pbtxt, such as `dynamic_batching.preferred_batch_size` or `instance_group[0].count`.
        value: The value in the spelling of config.pbtxt; a long one is cut.
        origin: A ConfigOrigin; a newer agent may know others.
    """

    field: str
    value: str
    origin: str


class Origin(StrEnum):
    """Origin of a model's files in a pod."""

    STORAGE = "Storage"  # storageUri
    MIRROR = "Mirror"  # one of storage.mirrors
    CACHE = "Cache"  # the cache on the claim, without a request to the source or while it is away


class ModelReport(Wire):
    """A model of the manifest in this pod.

    Attributes:
        name: Name of the model in Triton.
        state: State of the model.
        reason: CamelCase reason of a failure (`BucketNotFound`, `AccessDenied`, `Empty`, `LoadFailed`, ...).
        message: The sentence to the reason, with Triton's message where Triton failed.
        versions: The versions in Triton's repository index.
        digest: `sha256:` over the sorted (path, sha256) pairs of the fetched files.
        origin: An Origin of these files; a newer agent may know others. Empty: there are none yet.
        object_versions: The files' versions in their bucket or hub, by path below storageUri (empty path: of
            storageUri itself, an object or the commit of all files). Empty where the source keeps no versions, or the
            manifest has them.
        verified: The checks of its source's `verify` that the files have passed, such as Digest.
        signer: Whose signature the files have: `sha256:` of the public key in PEM, subject and `sha256:` of the
            certificate, or identity and issuer; empty: none is verified.
        bytes_fetched: Bytes of the model's files on disk.
        bytes_total: Bytes of the model's files in storage.
        fetch_seconds: Duration of the fetch.
        load_seconds: Duration of the load in Triton.
        warnings: Warnings about the laid-out model; the same for the same content. The one about the warm-up's
            ConfigMap follows when the warm-up starts.
        warmup: Result of the last warm-up in this pod; None without a warm-up, or before the first one has ended.
        warmup_digest: Digest over (key, sha256) of the warm-up's ConfigMap; empty without a ConfigMap.
        config: The configuration that Triton uses, read once after a load, with the origin of each value: at most 16
            values. Empty before the load, if Triton did not answer, and of the last ones of many models.
    """

    name: str
    state: ModelState
    reason: str = ""
    message: str = ""
    versions: tuple[VersionReport, ...] = ()
    digest: str = ""
    origin: str = ""
    object_versions: dict[str, str] = Field(default_factory=dict)
    verified: tuple[str, ...] = ()
    signer: str = ""
    bytes_fetched: Count = 0
    bytes_total: Count = 0
    fetch_seconds: float = 0.0
    load_seconds: float = 0.0
    warnings: tuple[ModelWarning, ...] = ()
    warmup: WarmupReport | None = None
    warmup_digest: str = ""
    config: tuple[ConfigValue, ...] = ()


class SourceReport(Wire):
    """The watched source of a model in the manifest, which may be a repository.

    Attributes:
        model: Name of the model in the manifest.
        fetched: Identity of the listing of which the pod has the files; empty: they are from the cache, or not there.
        identity: Identity of the listing in its last reads, which were the same; empty: there were no two yet.
        since: When that was read first, in seconds since the epoch.
        message: Why the listing cannot be read; empty: it can.
    """

    model: str
    fetched: Identity = ""
    identity: Identity = ""
    since: Annotated[float, Field(ge=0, le=_YEAR_9999)] = 0.0
    message: str = ""


class _Warned(Protocol):
    @property
    def warnings(self) -> Sequence[Any]: ...


def is_left_out(model: _Warned) -> bool:
    """Return True for a model that has failed and does not hold its pod.

    It is not required, or it ended Triton while it answered requests.

    Args:
        model: Its report, or its entry in the status.
    """
    return any(warning.reason == MODEL_NOT_SERVED for warning in model.warnings)


class AgentReport(Wire):
    """The models of a pod.

    Attributes:
        ready: True if all models are served, except those that have failed and do not hold their pod.
        reason: Reason of a failure of the whole pod, such as a manifest that is missing or cannot be read.
        message: The sentence to the reason.
        models: The models of the manifest.
        revision: Name of the revision of these models, by the manifest; empty: the manifest has none.
        sources: The sources that the pod watches.
    """

    ready: bool = False
    reason: str = ""
    message: str = ""
    models: tuple[ModelReport, ...] = ()
    revision: str = ""
    sources: tuple[SourceReport, ...] = ()

    @property
    def has_loaded(self) -> bool:
        """True if all models are served with the content of the manifest, and not yet with that of before."""
        return bool(self.models) and all(model.state == ModelState.READY or is_left_out(model) for model in self.models)
