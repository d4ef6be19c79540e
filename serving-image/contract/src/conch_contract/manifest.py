"""The model manifest: the models that a pod of a revision serves. From operator to agent."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final, Literal, Self

from pydantic import Field

from conch_contract._base import Wire
from conch_contract.decryption import Decryption
from conch_contract.formats import FORMATS, FormatName
from conch_contract.schemes import SCHEMES
from conch_contract.sentences import join_words
from conch_contract.verification import Verification
from conch_contract.warmup import Warmup


class RateLimiterResource(Wire):
    """A resource that an instance takes while it runs (Triton's ModelRateLimiter.Resource)."""

    name: str
    count: int
    is_global: bool = False


class RateLimiter(Wire):
    """Fields of Triton's ModelRateLimiter. None: unset."""

    resources: tuple[RateLimiterResource, ...] | None = None
    priority: int | None = None


class InstanceGroup(Wire):
    """Instances of a model on a kind of device: fields of Triton's ModelInstanceGroup. None: unset."""

    kind: Literal["CPU", "GPU", "AUTO"] | None = None
    count: int | None = None
    gpus: tuple[int, ...] | None = None
    rate_limiter: RateLimiter | None = None


class QueuePolicy(Wire):
    """Fields of Triton's ModelQueuePolicy. None: unset."""

    timeout_action: Literal["REJECT", "DELAY"] | None = None
    default_timeout_microseconds: int | None = None
    allow_timeout_override: bool | None = None
    max_queue_size: int | None = None


class Priorities(Wire):
    """The priority levels of Triton's ModelDynamicBatching.

    Attributes:
        levels: Number of levels, from 1, which is run first.
        default_level: Level of a request that selects none.
    """

    levels: int
    default_level: int


class DynamicBatching(Wire):
    """Fields of Triton's ModelDynamicBatching. None: unset."""

    max_queue_delay_microseconds: int | None = None
    preferred_batch_size: tuple[int, ...] | None = None
    preserve_ordering: bool | None = None
    queue_policy: QueuePolicy | None = None
    priorities: Priorities | None = None


class DirectStrategy(Wire):
    """Fields of Triton's StrategyDirect. None: unset. The utilization is from 0 to 1."""

    max_queue_delay_microseconds: int | None = None
    minimum_slot_utilization: float | None = None


class OldestStrategy(Wire):
    """Fields of Triton's StrategyOldest. None: unset."""

    max_candidate_sequences: int | None = None
    preferred_batch_size: tuple[int, ...] | None = None
    max_queue_delay_microseconds: int | None = None
    preserve_ordering: bool | None = None


class SequenceBatching(Wire):
    """Fields of Triton's ModelSequenceBatching: at most one of direct and oldest. None: unset."""

    max_sequence_idle_microseconds: int | None = None
    direct: DirectStrategy | None = None
    oldest: OldestStrategy | None = None


class Accelerator(Wire):
    """An execution accelerator (Triton's ExecutionAccelerators.Accelerator)."""

    name: str
    parameters: dict[str, str] = Field(default_factory=dict)


class Optimization(Wire):
    """Fields of Triton's ModelOptimizationPolicy. None: unset."""

    priority: Literal["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"] | None = None
    cuda_graphs: bool | None = None
    graph_level: int | None = None
    input_pinned_memory: bool | None = None
    output_pinned_memory: bool | None = None
    gpu_accelerators: tuple[Accelerator, ...] | None = None
    cpu_accelerators: tuple[Accelerator, ...] | None = None


class VersionPolicy(Wire):
    """The version folders that Triton serves: exactly one of the three fields is set (Triton's ModelVersionPolicy)."""

    latest: int | None = None
    all: bool = False
    specific: tuple[int, ...] = ()


class TritonConfig(Wire):
    """The fields of Triton's ModelConfig that the InferenceService sets.

    Unset fields have the value of the model's own config.pbtxt, or of Triton's auto-completion.
    """

    max_batch_size: int | None = None
    instance_groups: tuple[InstanceGroup, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    optimization: Optimization | None = None
    version_policy: VersionPolicy | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    response_cache: bool = Field(default=False, description="true: Triton caches the answers of the model")
    text: str = Field("", description="other fields, in the syntax of config.pbtxt")


class PipelineStep(Wire):
    """A step of a pipeline.

    Attributes:
        model: Name of the model.
        inputs: Tensors of the pipeline by input of the model. Absent: the tensor of the input's name.
        outputs: Tensors of the pipeline by output of the model. Absent: the tensor of the output's name.
    """

    model: str
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)


class Mirror(Wire):
    """Another place of a model's files.

    Attributes:
        uri: The URI, in the form of a storage_uri.
        secret: Name of its Secret; empty: it needs none.
    """

    uri: str
    secret: str = ""


class ModelSource(Wire):
    """A model: its name in Triton, the storage of its files, its configuration and its warm-up.

    A source of the format repository is several models, a folder each; it has the name and the warm-up of its entry,
    the model that clients call. `select_model` returns the source of one of them.

    A source with steps is a pipeline: it has no files, and the agent renders its configuration. Its storage_uri is
    `pipeline:<name>`, which an agent of an older image refuses.
    """

    name: str
    format: FormatName
    storage_uri: str = Field(description=join_words((scheme.example for scheme in SCHEMES.values()), "or"))
    secret: str = Field("", description="name of its Secret among several; empty: the only one")
    mirrors: tuple[Mirror, ...] = Field((), description="other places of the same files, in the order of attempts")
    verify: Verification | None = Field(None, description="checks of its files; null: none")
    decrypt: Decryption | None = Field(None, description="the keys of its files; null: they are not encrypted")
    config: TritonConfig = TritonConfig()
    has_response_cache: bool = Field(default=False, description="true: the model's Triton has a cache of answers")
    warmup: Warmup | None = None
    required: bool = Field(default=True, description="false: the pod is ready without the model, if it fails")
    steps: tuple[PipelineStep, ...] = Field((), description="in their order, other models of the manifest")
    digest: str = Field("", description="of the files that the revision serves, sha256:...; empty: not known yet")
    object_versions: dict[str, str] = Field(
        default_factory=dict,
        description="in which its bucket or hub has these files, by path below storageUri; empty: none",
    )
    warmup_digest: str = Field("", description="of the requests in the warm-up's ConfigMap when a pod was first ready")
    source_identity: str = Field(
        "", description="of the listing whose files the revision was created for; empty: it serves any files"
    )

    @property
    def is_repository(self) -> bool:
        """True if the source is several models."""
        return FORMATS[self.format].is_repository

    @property
    def places(self) -> tuple[Self, ...]:
        """The source at storage_uri, and then at each mirror. Object versions are those of the former's bucket.

        A mirror has another listing. So a revision that was created for a listing has none until its digest is known.
        """
        mirrors = () if self.source_identity and not self.digest else self.mirrors
        at_mirrors = ({"storage_uri": mirror.uri, "secret": mirror.secret, "object_versions": {}} for mirror in mirrors)
        return tuple(self.model_copy(update={"mirrors": (), **each}) for each in ({}, *at_mirrors))

    def without_pins(self) -> Self:
        """Return the source without digests and object versions, which the operator adds after a pod has served it."""
        return self.model_copy(update={"digest": "", "object_versions": {}, "warmup_digest": ""})


class WatchedSource(Wire):
    """The source of a model or repository, whose listing pods read again and again.

    Attributes:
        model: Name of the model in the manifest.
        refresh_seconds: Seconds between two reads.
    """

    model: str
    format: FormatName
    storage_uri: str
    secret: str = ""
    refresh_seconds: float


class ModelManifest(Wire):
    """The models of a pod.

    Attributes:
        models: The models.
        entry: Name of the model of several that clients call; empty: there is one model, or an older operator wrote it.
        revision: Name of the revision whose models they are; empty in a pod whose revision cannot change.
        in_place: True if the pod gets requests while it changes its revision: it is ready as long as it serves one.
        watched: The sources that pods watch for new content.
    """

    models: tuple[ModelSource, ...]
    entry: str = ""
    revision: str = ""
    in_place: bool = False
    watched: tuple[WatchedSource, ...] = ()

    @property
    def entry_source(self) -> ModelSource | None:
        """The model that clients call, to which revision Jobs send requests; None: the manifest has no models.

        In a manifest of several without entry it is the only one with a warm-up, if there is one.
        """
        named = (source for source in self.models if source.name == self.entry)
        warmed = (source for source in self.models if source.warmup)
        return next(chain(named, warmed, self.models), None)


FOLDER_FORMAT: Final = "triton"  # of a folder as in a model repository


def select_model(repository: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the source of one model of a repository; both sources are as on the wire.

    Args:
        repository: The source of the repository.
        name: Name of the model's folder.

    >>> source = {"name": "all", "format": "repository", "storageUri": "s3://m/repo/", "warmup": {}}
    >>> select_model(source, "pre")
    {'name': 'pre', 'format': 'triton', 'storageUri': 's3://m/repo/pre'}
    """
    uri = _join(repository["storageUri"], name)
    source = {**repository, "name": name, "format": FOLDER_FORMAT, "storageUri": uri}
    if mirrors := repository.get("mirrors"):
        source["mirrors"] = [{**mirror, "uri": _join(mirror["uri"], name)} for mirror in mirrors]
    source.pop("sourceIdentity", None)  # of the repository as a whole
    if name != repository["name"]:
        source.pop("warmup", None)
    return source


def _join(uri: str, name: str) -> str:
    return f"{uri.rstrip('/')}/{name}"
