"""The model manifest: what a pod of a revision shall serve. Operator to agent."""

from typing import Literal, Self

from pydantic import Field

from conch_contract._base import Wire
from conch_contract.formats import FormatName
from conch_contract.schemes import SCHEMES
from conch_contract.sentences import join_words
from conch_contract.warmup import Warmup


class InstanceGroup(Wire):
    """Copies of a model on a kind of device: fields of Triton's ModelInstanceGroup. None: unset."""

    kind: Literal["CPU", "GPU", "AUTO"] | None = None
    count: int | None = None
    gpus: tuple[int, ...] | None = None


class DynamicBatching(Wire):
    """Fields of Triton's ModelDynamicBatching; the delay is in microseconds, as Triton counts it. None: unset."""

    max_queue_delay_microseconds: int | None = None
    preferred_batch_size: tuple[int, ...] | None = None
    preserve_ordering: bool | None = None


class VersionPolicy(Wire):
    """Which version folders Triton serves: exactly one of the three (Triton's ModelVersionPolicy)."""

    latest: int | None = None
    all: bool = False
    specific: tuple[int, ...] = ()


class TritonConfig(Wire):
    """What the user typed of Triton's ModelConfig.

    What is unset is left to the model's own config.pbtxt and to Triton's auto-completion.
    """

    max_batch_size: int | None = None
    instance_groups: tuple[InstanceGroup, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    version_policy: VersionPolicy | None = None


class ModelSource(Wire):
    """One model: its name in Triton, where its files are, what was typed of its configuration, how it is warmed."""

    name: str
    format: FormatName
    storage_uri: str = Field(description=join_words((scheme.example for scheme in SCHEMES.values()), "or"))
    config: TritonConfig = TritonConfig()
    warmup: Warmup | None = None
    digest: str = Field("", description="of the files that the revision serves, sha256:...; empty: not known yet")
    object_versions: dict[str, str] = Field(
        default_factory=dict, description="in which its bucket has these files, by path below storageUri; empty: none"
    )
    warmup_digest: str = Field("", description="of the requests in the warm-up's ConfigMap when a pod was first ready")

    @property
    def unpinned(self) -> Self:
        """The source without what the operator adds once a pod has served it: digests and object versions."""
        return self.model_copy(update={"digest": "", "object_versions": {}, "warmup_digest": ""})


class ModelManifest(Wire):
    """All that a pod shall serve."""

    models: tuple[ModelSource, ...]
