"""How Triton serves the model: what is typed of its ModelConfig and of its server flags.

Triton's own words, and refused here where Triton would refuse them at load.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import Duration, Part
from conch.api.cel import Rule, rules
from conch.api.quantity import Quantity

# Triton reads its flags with getopt_long, which takes any unambiguous beginning of a name: so a
# beginning of one of these is refused as well. model-store is Triton's old name of model-repository;
# the SSL flags are here because the agent speaks plain gRPC to its Triton; SageMaker's and Vertex AI's
# front ends are here because they let models be unloaded without the key that guards Triton's own.
OWNED_FLAGS: Final = (
    "model-repository",
    "model-store",
    "model-control-mode",
    "load-model",
    "repository-poll-secs",
    "http-port",
    "grpc-port",
    "metrics-port",
    "http-address",
    "grpc-address",
    "metrics-address",
    "allow-http",
    "allow-grpc",
    "allow-metrics",
    "strict-readiness",
    "http-restricted-api",
    "grpc-restricted-protocol",
    "grpc-use-ssl",
    "grpc-use-ssl-mutual",
    "allow-sagemaker",
    "allow-vertex-ai",
)
_OWNED: Final = "[" + ", ".join(f"'--{flag}'" for flag in OWNED_FLAGS) + "]"

Argument = Annotated[
    str,
    Field(max_length=512),
    Rule(
        "self.matches('^--[a-z][a-z0-9-]*(=|$)')",
        message="not a flag of tritonserver; write it as --name or --name=value, in one item",
        expression="'\"' + self + '\" is not a flag of tritonserver; write it as --name or --name=value, in one item'",
    ),
    Rule(
        f"!self.startsWith('--') || self.split('=')[0].size() < 3"
        # The list of one gives the flag's name a name, so that it is cut out only once.
        f" || ![self.split('=')[0]].exists(flag, {_OWNED}.exists(own, own.startsWith(flag)))",
        message="this flag is set by Conch, which needs it to load, probe and drain the model; remove it",
        expression="self.split('=')[0]"
        " + ' is set by Conch, which needs it to load, probe and drain the model; remove it from args'",
    ),
    # A beginning of it that is longer than model-con, which is one of model-control-mode too.
    Rule(
        "!self.startsWith('--model-conf')",
        message="--model-config-name makes Triton read another file than the config.pbtxt into which Conch merges"
        " spec.predictor.triton; keep that configuration as config.pbtxt and remove the flag",
    ),
]


Image = Annotated[
    str,
    Field(max_length=512),
    Rule(
        "self.matches('^[^[:space:]]+$')",
        message="an image's name is not empty and holds no blank; write it as registry/name:tag or name@sha256:digest",
    ),
]


class InstanceGroup(Part):
    """Copies of the model on a kind of device (Triton's ModelInstanceGroup).

    An unset field is that of the group in config.pbtxt, if there is one.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.kind) || self.kind != 'CPU' || !has(self.gpus) || self.gpus.size() == 0",
                message="an instance group of kind CPU has no gpus; remove gpus or set kind to GPU",
                path=".gpus",
            ),
        )
    )

    kind: Literal["CPU", "GPU", "AUTO"] | None = None
    """Where the copies run. AUTO is GPU where the container has one and the backend can use it, else CPU. Absent: the
    kind in config.pbtxt, or AUTO."""
    count: Annotated[int | None, Field(ge=1, le=1024)] = None
    """Copies of the model; with kind GPU, on each of the GPUs. Absent: the count in config.pbtxt, or 1."""
    gpus: Annotated[tuple[Annotated[int, Field(ge=0, le=1023)], ...], Field(max_length=64)] | None = None
    """The GPUs of the container, counted from 0. Empty: all of them. Absent: those in config.pbtxt, or all of them."""


class DynamicBatching(Part):
    """Triton joins requests into batches (Triton's ModelDynamicBatching). An unset field is that of config.pbtxt."""

    max_queue_delay: Duration | None = None
    """How long a request may wait for others to join its batch, such as 500us or 2ms. Absent: the delay in
    config.pbtxt, or 0."""
    preferred_batch_size: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=32)] | None
    ) = None
    """Batch sizes that are sent at once when reached, without waiting for more. Empty: none. Absent: those in
    config.pbtxt."""
    preserve_ordering: bool | None = None
    """Whether responses leave in the order of their requests. Absent: as in config.pbtxt, or false."""


class LatestVersions(Part):
    """The newest versions."""

    num_versions: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many of them."""


class AllVersions(Part):
    """Every version; written as {}."""


# Triton reads a version as an integer of 64 bits. A timestamp in nanoseconds is one.
MAX_VERSION: Final = 9_000_000_000_000_000_000


class SpecificVersions(Part):
    """Versions by number."""

    versions: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_VERSION)], ...], Field(min_length=1, max_length=64)]
    """The numbers of the version folders."""


class VersionPolicy(Part):
    """Which version folders of the model Triton serves: exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.latest), has(self.all), has(self.specific)].filter(set, set).size() == 1",
                message="versionPolicy takes exactly one of latest, all and specific; keep one of them",
            ),
        )
    )

    latest: LatestVersions | None = None
    """Serve the newest versions."""
    all: AllVersions | None = None
    """Serve every version."""
    specific: SpecificVersions | None = None
    """Serve these versions."""


class Triton(Part):
    """How Triton serves the model.

    A field that is set wins over the same field of config.pbtxt; the fields beside it stay as they are there. What is
    unset in both is completed by Triton.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.dynamicBatching) || !has(self.maxBatchSize) || self.maxBatchSize > 0",
                message="maxBatchSize 0 means that the model takes no batches, so dynamicBatching cannot be;"
                " set maxBatchSize to at least 1 or remove dynamicBatching",
                path=".dynamicBatching",
            ),
            Rule(
                "!has(self.dynamicBatching) || !has(self.dynamicBatching.preferredBatchSize)"
                " || !has(self.maxBatchSize) || self.maxBatchSize == 0"
                " || self.dynamicBatching.preferredBatchSize.all(size, size <= self.maxBatchSize)",
                message="preferredBatchSize must not exceed maxBatchSize; lower the one or raise the other",
                expression="'preferredBatchSize %s must not exceed maxBatchSize %d; lower the one or raise"
                " the other'.format([self.dynamicBatching.preferredBatchSize, self.maxBatchSize])",
                path=".dynamicBatching.preferredBatchSize",
            ),
        )
    )

    instance_groups: Annotated[tuple[InstanceGroup, ...], Field(max_length=16)] = ()
    """Copies of the model, and where they run. Each is merged into the group at the same place in config.pbtxt. A
    single group there is the base of all. Empty: the groups of config.pbtxt, or Triton's (one a GPU, or one on the
    CPU)."""
    max_batch_size: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    """The largest batch; 0 for a model whose inputs have no batch dimension. Absent: that of config.pbtxt."""
    dynamic_batching: DynamicBatching | None = None
    """Join requests into batches; {} takes what config.pbtxt sets, and Triton's defaults. Absent: as in config.pbtxt,
    where each request goes alone if it does not set it."""
    version_policy: VersionPolicy | None = None
    """Which version folders are served. Absent: as in config.pbtxt, or the newest one."""
    shm_size: Quantity = "64Mi"
    """The size of /dev/shm, which Python models use for their tensors. It counts against the memory limit."""
    args: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    """More flags for tritonserver, each as --name=value. Flags that Conch sets are refused."""
    image: Image | None = None
    """The image that Triton runs from. Absent: the serving image that the operator came with."""
