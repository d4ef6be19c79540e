"""Configuration of Triton: fields of its ModelConfig, and flags of tritonserver.

Names and values are Triton's. The API server refuses values that Triton would refuse at load.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from conch.api._base import Duration, Part
from conch.api.cel import Rule, rules
from conch.api.optimization import Optimization
from conch.api.quantity import Quantity, cel_is_quantity
from conch.api.rate_limiter import RateLimiter
from conch.api.sequences import SequenceBatching

# Triton parses its flags with getopt_long, which accepts any unambiguous prefix of a name, so prefixes of these are
# refused as well. model-store is Triton's old name of model-repository. The agent uses gRPC without TLS, so it excludes
# the SSL flags. The front ends of SageMaker and Vertex AI can unload models without the control key.
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

# Flags of the response cache: --cache-config, --cache-directory, and --response-cache-byte-size, their older form.
CACHE_FLAGS: Final = "^--(response-)?cache-"
# --trace-config, and --trace-file, --trace-level and others, its older form.
_TRACE_FLAGS: Final = "^--trace-"

MAX_PRIORITY_LEVELS: Final = 32

Argument = Annotated[
    str,
    Field(max_length=512),
    Rule(
        "self.matches('^--[a-z][a-z0-9-]*(=|$)')",
        message="not a flag of tritonserver; write it as --name or --name=value, in one item",
    ),
    Rule(
        f"!self.startsWith('--') || self.split('=')[0].size() < 3"
        # The list of one item binds the flag's name to a variable, so that it is split once.
        f" || ![self.split('=')[0]].exists(flag, {_OWNED}.exists(own, own.startsWith(flag)))",
        message="Conch sets this flag to load, probe and drain the model; remove it",
        expression="self.split('=')[0] + ' is set by Conch to load, probe and drain the model; remove it from args'",
    ),
    # A prefix of it that is longer than model-con, which is a prefix of model-control-mode too.
    Rule(
        "!self.startsWith('--model-conf')",
        message="--model-config-name selects another file than config.pbtxt, into which Conch merges"
        " spec.predictor.triton; name that file config.pbtxt and remove the flag",
    ),
    Rule(
        "!self.matches('^--rate-limit(=|$)') || self == '--rate-limit=execution_count'",
        message="rateLimiter of instance groups sets this flag; remove it",
    ),
]


Image = Annotated[
    str,
    Field(max_length=512),
    Rule(
        "self.matches('^[^[:space:]]+$')",
        message="an image must not be empty and must not have blanks; write it as registry/name:tag or"
        " name@sha256:digest",
    ),
]


class InstanceGroup(Part):
    """Instances of the model on a kind of device (Triton's ModelInstanceGroup).

    An unset field has the value of its group in config.pbtxt.
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
    """Device of the instances. AUTO: GPU if the container has one and the backend supports it, else CPU. Absent: as
    in config.pbtxt, or AUTO."""
    count: Annotated[int | None, Field(ge=1, le=1024)] = None
    """Number of instances; with kind GPU, on each of the GPUs. Absent: as in config.pbtxt, or 1."""
    gpus: Annotated[tuple[Annotated[int, Field(ge=0, le=1023)], ...], Field(max_length=64)] | None = None
    """Indexes of the container's GPUs, from 0. Empty: all GPUs. Absent: those in config.pbtxt, or all GPUs."""
    rate_limiter: RateLimiter | None = None
    """Turns and resources of the instances. {}: those of config.pbtxt."""


class QueuePolicy(Part):
    """Limits of a queue of requests (Triton's ModelQueuePolicy). An unset field has the value of config.pbtxt."""

    max_queue_size: Annotated[int | None, Field(ge=0, le=1_000_000_000)] = None
    """Maximum number of requests that wait in a pod, of each priority level; others are refused. 0: no maximum. Absent:
    as in config.pbtxt, or no maximum."""
    default_timeout: Duration | None = None
    """Maximum time of a request in the queue, such as 500ms. 0s: no maximum. Absent: as in config.pbtxt, or no
    maximum."""
    timeout_action: Literal["Reject", "Delay"] | None = None
    """Reaction to a request that has waited for defaultTimeout. Reject: an error. Delay: it is run after all others.
    Absent: as in config.pbtxt, or Reject."""
    allow_timeout_override: bool | None = None
    """True: a request may shorten defaultTimeout (its parameter timeout). Absent: as in config.pbtxt, or false."""


class Priorities(Part):
    """Priority levels of requests. A request selects its level by the parameter priority."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.defaultLevel <= self.levels",
                message="defaultLevel must be one of the levels; lower it or raise levels",
                expression="'defaultLevel %d must be one of the %d levels; lower it or raise levels'"
                ".format([self.defaultLevel, self.levels])",
                path=".defaultLevel",
            ),
        )
    )

    levels: Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)]
    """Number of levels. Requests of level 1 are run first."""
    default_level: Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)]
    """Level of a request that selects none."""


class DynamicBatching(Part):
    """Dynamic batching of requests (Triton's ModelDynamicBatching). An unset field has the value of config.pbtxt."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.preserveOrdering) || !self.preserveOrdering || !has(self.priorities)"
                " || self.priorities.levels == 1",
                message="preserveOrdering excludes several priority levels; remove preserveOrdering or priorities",
                path=".priorities",
            ),
        )
    )

    max_queue_delay: Duration | None = None
    """Maximum delay of a request in the queue for a larger batch, such as 500us or 2ms. Absent: as in
    config.pbtxt, or 0."""
    preferred_batch_size: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=32)] | None
    ) = None
    """Batch sizes that Triton runs at once when they are reached. Empty: none. Absent: those in config.pbtxt."""
    preserve_ordering: bool | None = None
    """True: responses are sent in the order of their requests. Absent: as in config.pbtxt, or false."""
    queue_policy: QueuePolicy | None = None
    """Limits of the queue of requests. Absent: those in config.pbtxt, or none."""
    priorities: Priorities | None = None
    """Priority levels of requests. Absent: those in config.pbtxt, or one level."""


class LatestVersions(Part):
    """The newest versions."""

    num_versions: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of the newest versions to serve."""


class AllVersions(Part):
    """All versions. Written as {}."""


# Triton reads a version as an integer of 64 bits. A timestamp in nanoseconds is one.
MAX_VERSION: Final = 9_000_000_000_000_000_000


class SpecificVersions(Part):
    """Versions by number."""

    versions: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_VERSION)], ...], Field(min_length=1, max_length=64)]
    """Numbers of the version folders to serve."""


class VersionPolicy(Part):
    """Versions of the model that Triton serves: exactly one of latest, all and specific."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.latest), has(self.all), has(self.specific)].filter(set, set).size() == 1",
                message="versionPolicy has exactly one of latest, all and specific; keep one of them",
            ),
        )
    )

    latest: LatestVersions | None = None
    """The newest versions by number."""
    all: AllVersions | None = None
    """All versions. Written as {}."""
    specific: SpecificVersions | None = None
    """Selected versions by number."""


_MODEL_RULES: Final = (
    Rule(
        "!has(self.dynamicBatching) || !has(self.maxBatchSize) || self.maxBatchSize > 0",
        message="dynamicBatching needs maxBatchSize above 0; set maxBatchSize to at least 1 or remove dynamicBatching",
        path=".dynamicBatching",
    ),
    Rule(
        "!has(self.dynamicBatching) || !has(self.dynamicBatching.preferredBatchSize)"
        " || !has(self.maxBatchSize) || self.maxBatchSize == 0"
        " || self.dynamicBatching.preferredBatchSize.all(size, size <= self.maxBatchSize)",
        message="preferredBatchSize must not exceed maxBatchSize; lower it or raise maxBatchSize",
        expression="'preferredBatchSize %s must not exceed maxBatchSize %d; lower it or raise"
        " maxBatchSize'.format([self.dynamicBatching.preferredBatchSize, self.maxBatchSize])",
        path=".dynamicBatching.preferredBatchSize",
    ),
    Rule(
        "!has(self.sequenceBatching) || !has(self.dynamicBatching)",
        message="sequenceBatching excludes dynamicBatching; keep one of them",
        path=".sequenceBatching",
    ),
)


class ModelConfig(Part):
    """How Triton serves a model.

    A field that is set wins over the same field of config.pbtxt; the fields beside it stay as they are there. What is
    unset in both is completed by Triton.
    """

    model_config = ConfigDict(json_schema_extra=rules(*_MODEL_RULES))

    instance_groups: Annotated[tuple[InstanceGroup, ...], Field(max_length=16)] = ()
    """Instance groups of the model. Each is merged into that of the same index in config.pbtxt, or into its only one.
    Empty: those of config.pbtxt, or Triton's default: one instance on each GPU, or on the CPU."""
    max_batch_size: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    """Maximum batch size; 0 for a model without batch dimension. Absent: as in config.pbtxt."""
    dynamic_batching: DynamicBatching | None = None
    """Dynamic batching of requests. {}: with the values of config.pbtxt and Triton's defaults. Absent: as in
    config.pbtxt, or no batching."""
    sequence_batching: SequenceBatching | None = None
    """Batching of sequences of requests. Control inputs and states are in config.pbtxt or config. Absent: as in
    config.pbtxt, or none."""
    optimization: Optimization | None = None
    """Optimizations by the backend. Absent: as in config.pbtxt."""
    version_policy: VersionPolicy | None = None
    """Versions of the model that Triton serves. Absent: as in config.pbtxt, or the newest one."""
    parameters: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]] | None,
        Field(max_length=64),
        Rule(
            "self.all(name, name.size() > 0 && !name.startsWith('conch.dev/'))",
            message="a parameter's name must not be empty or begin with conch.dev/, which is Conch's own; rename it",
        ),
    ] = None
    """Parameters of the model and its backend, as texts. Each replaces that of the same name in config.pbtxt."""
    config: Annotated[str | None, Field(min_length=1, max_length=16_384)] = None
    """Other fields of Triton's ModelConfig, in the syntax of config.pbtxt, over which they win: messages by field, maps
    by key, lists as a whole."""


MODEL_FIELDS: Final = tuple(to_camel(field) for field in ModelConfig.model_fields)
"""The fields of `triton` that are of one model; the others are of the server."""


class ResponseCache(Part):
    """Triton's cache of answers, which each pod has for itself."""

    size: Annotated[
        Quantity,
        Rule(
            f"!{cel_is_quantity('self')} || !quantity(string(self)).isLessThan(quantity('1Mi'))",
            message="a response cache has at least 1Mi; write a larger size, such as 64Mi",
        ),
    ]
    """Memory of the cache, which all models share. It counts against the memory limit."""


TraceRate = Annotated[int, Field(ge=0, le=1_000_000)]


class Tracing(Part):
    """Traces of requests, which Triton sends to an OpenTelemetry collector."""

    url: Annotated[
        str,
        Field(max_length=512),
        Rule(
            "self.matches('^https?://[!-.0-~]+/[!-~]+$')",  # characters of ASCII, and a slash after the host
            message="not an OTLP/HTTP URL; write one such as http://collector.monitoring:4318/v1/traces",
        ),
    ]
    """URL of the collector, with its path."""
    rate: TraceRate = 1000
    """Each pod traces one of so many requests; 0: none. Those with a trace context (traceparent) always are."""
    model_rates: Annotated[dict[str, TraceRate], Field(max_length=64)] = Field(default_factory=dict)
    """Other rates, by model; 0: none of its requests."""


def _exclude_flags(field: str, flags: str) -> Rule:
    """Return the rule that a field and flags in args do not configure the same part of Triton."""
    sentence = f"{field} exclude each other; remove one"
    return Rule(
        f"!has(self.{field}) || !has(self.args) || !self.args.exists(f, f.matches('{flags}'))",
        message=f"a flag in args and {sentence}",
        expression=f"self.args.filter(f, f.matches('{flags}'))[0] + ' and {sentence}'",
        path=".args",
    )


class Triton(ModelConfig):
    """How Triton serves the model, and the server itself.

    A field that is set wins over the same field of config.pbtxt; the fields beside it stay as they are there. What is
    unset in both is completed by Triton.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            *_MODEL_RULES,
            _exclude_flags("responseCache", CACHE_FLAGS),
            _exclude_flags("tracing", _TRACE_FLAGS),
            Rule(
                "!has(self.responseCache) || !has(self.sequenceBatching)",
                message="Triton caches no answers of sequences; remove responseCache or sequenceBatching",
                path=".responseCache",
            ),
        )
    )

    response_cache: ResponseCache | None = None
    """Cache of answers: a request with the inputs of an earlier one gets its answer, and the model does not run. Of
    several models, those use it that have response_cache { enable: true } in config or config.pbtxt. Absent: none."""
    tracing: Tracing | None = None
    """Traces, sent to an OpenTelemetry collector. Absent: none."""
    shm_size: Quantity = "64Mi"
    """Size limit of /dev/shm, which Python models use for tensors. It counts against the memory limit."""
    args: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    """Additional flags of tritonserver, each as --name=value. Flags that Conch sets are refused."""
    image: Image | None = None
    """Image of Triton's container. Absent: the serving image of the installation."""
