"""The status of an InferenceService. Only the operator writes it, through the status subresource.

Fields are optional and without enumerations in the schema, so that an operator that is newer than the CRD, or older
than the status, reads and writes it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from conch.api._base import Part, list_map_key
from conch.api.analysis import GateStatus
from conch.api.names import RolloutPhase
from conch.api.rollout import StepInForce
from conch.api.text import Text
from conch.api.times import format_time, is_time, parse_time
from conch.api.warmup import WarmupStatus

# The status of a revision has so many models: with all of a large repository an object would be too large to be stored.
MAX_LISTED_MODELS: Final = 32
# The value of status.observedGeneration before the operator has read the service.
NOT_OBSERVED: Final = -1


class Condition(Part):
    """One aspect of the service's state (metav1.Condition)."""

    type: str
    """Type: Ready, Serving, RolloutComplete, Autoscaling, TrafficProgrammed, SignaturePolicy, Reconciling or
    Stalled."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: Text
    """Reason of the status, one CamelCase word."""
    message: Text = ""
    """Details of the reason, for users."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time of the last change of `status`."""
    observed_generation: int | None = None
    """Generation of the InferenceService that the condition is computed from."""


class ServedModel(Part):
    """The model as clients name it."""

    name: str
    """Name of the model in Triton: <model> in /v2/models/<model>/infer."""


class ModelWarning(Part):
    """A warning about a model, which serves all the same."""

    reason: Text
    """Such as ConfigOverridden or MemoryHoldsOne."""
    message: Text = ""
    """Cause of the warning, and the remedy."""


class ConfigValue(Part):
    """A value of the configuration that Triton uses."""

    field: Text
    """Its path in config.pbtxt, such as max_batch_size."""
    value: Text = ""
    """The value, as in config.pbtxt."""
    origin: Text = ""
    """Spec (the InferenceService), File (config.pbtxt), Conch (from modelFormat or pipeline) or Triton (completed)."""


class ModelStatus(Part):
    """A model of a revision, as its pods report it."""

    name: str
    """Name of the model in Triton."""
    versions: tuple[int, ...] = ()
    """Versions of the model that Triton serves."""
    state: str = ""
    """State of the model in the least advanced pod: Pending, Fetching, Loading, Warming, Ready or Failed."""
    reason: Text = ""
    """Reason why the model is not ready, one CamelCase word. Empty: it is ready."""
    message: Text = ""
    """Error message of Triton or of the storage. Empty: the model is ready."""
    digest: str = ""
    """Digest of the fetched files, sha256:<hex>."""
    verified: tuple[Text, ...] = ()
    """Checks that the files have passed: Digest, Signature, SignaturePolicy."""
    signer: Text = ""
    """Whose signature the files have: sha256: of the public key, a certificate or an identity. Empty: none."""
    sequences: bool = False
    """True if the model has sequence_batching, whose state is in one pod."""
    warnings: Annotated[tuple[ModelWarning, ...], list_map_key("reason")] = ()
    """Warnings, such as values of config.pbtxt that the spec overrides, and called models that are not served."""
    config: tuple[ConfigValue, ...] = ()
    """Values of its configuration that Triton uses: up to 16, and 64 of a revision."""


class ModelCounts(Part):
    """Numbers of models of a revision."""

    ready: int = 0
    """Number of models that are ready in all pods."""
    total: int = 0
    """Number of all models."""


class ReplicaStatus(Part):
    """Numbers of pods of a revision."""

    ready: int = 0
    """Number of ready pods."""
    desired: int = 0
    """Desired number of pods."""


class RevisionStatus(Part):
    """A revision with pods, or scaled to zero."""

    name: str
    """Name of the revision, of its Deployment and of its ControllerRevision."""
    variant: str | None = None
    """Name of its variant. Absent: it is a revision of the predictor."""
    number: int = 0
    """Revision number, counted from 1."""
    generation: int = 0
    """Generation of the InferenceService that created the revision."""
    phase: str = ""
    """Phase of the revision: Pending, Fetching, Loading, Warming, Ready, Failed or ScaledToZero."""
    weight: int = 0
    """Weight of the revision in percent."""
    replicas: ReplicaStatus = ReplicaStatus()
    """Numbers of ready and desired pods."""
    images: tuple[str, ...] = ()
    """Images of Triton in the ready pods, with digest, as the nodes report them. More than one: the tag was moved to
    another image."""
    models: tuple[ModelStatus, ...] = ()
    """Models of the revision, as its pods report them; of more than 32 the entry, then those that are not
    ready or have warnings."""
    model_counts: ModelCounts | None = None
    """Numbers of ready models and of all models. Absent: models has all of them."""
    warmup: WarmupStatus | None = None
    """Result of the warm-up through its Service, before its first request of a client. Absent: there was none."""
    since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Time of the last change of the phase."""


class RolloutStatus(Part):
    """The rollout of a candidate, also after it has failed. It is the operator's only record of the rollout."""

    revision: str
    """Name of the candidate, also after it has failed."""
    strategy: str = ""
    """Strategy in force: Progressive, Recreate, Swap, SwapInPlace (of one pod) or Replace. Recreate is also that of
    onInsufficientCapacity Recreate. Replace is that of a stable revision that never had a ready pod: without steps."""
    phase: str = ""
    """Phase of the rollout: Progressing, Paused or Failed."""
    steps: tuple[StepInForce, ...] = ()
    """Steps in force: those of spec.rollout.steps with strategy Progressive or Swap, and weight 100 as the last one."""
    swap_obstacle: str = ""
    """Why the rollout starts pods, although spec.rollout.strategy is Swap."""
    step: int = 0
    """Index of the current step in `steps`, from 0. The number of steps if all have ended."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = ""
    """Start time of the current step."""
    started: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = ""
    """Start time of the rollout."""
    weight: int = 0
    """Desired weight of the candidate in percent."""
    observed_weight: int = 0
    """Observed weight of the candidate in percent, as the HTTPRoute or the EndpointSlices have it."""
    unavailable_since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Time since when a candidate with a weight has no ready pod. The stable revision gets its requests meanwhile.
    Absent: it has ready pods, or no weight."""
    stable_unavailable_since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Time since when the stable revision has no ready pod for the comparison of a parity gate. Absent: it has ready
    pods, or no comparison is due."""
    capacity: int = 0
    """Number of ready pods of the stable revision when the rollout began. They are kept until it ends."""
    admission: str = ""
    """Result of the check for free GPUs for the candidate's pods beside the stable ones, decided once: Pending,
    Admitted, Insufficient (the strategy is Recreate or Swap), Unknown or Overridden. Empty: the pods request no GPU."""
    reason: Text = ""
    """Reason why the rollout waits or failed, one CamelCase word."""
    message: Text = ""
    """Details of the reason, for users."""
    gates: Annotated[tuple[GateStatus, ...], list_map_key("name")] = ()
    """Results of the gates of rollout.analysis."""
    request: str = ""
    """Value of the annotation conch.dev/rollout that was last carried out."""


class RequestStatus(Part):
    """A request in the annotation conch.dev/rollout, and its result."""

    text: Text
    """Value of the annotation."""
    state: str = ""
    """Done, Refused, or Pending (for a later generation of the spec)."""
    message: Text = ""
    """Cause of the refusal, and the remedy."""


class _Track(Part):
    """Status of a track: of the predictor, or of a variant."""

    conditions: Annotated[tuple[Condition, ...], list_map_key("type")] = ()
    """Conditions: Ready, Serving, RolloutComplete, Autoscaling and TrafficProgrammed; Reconciling and Stalled only
    while true."""
    url: str | None = None
    """URL for clients in the cluster (HTTP). The gRPC endpoint is port 8001 of the same host."""
    stable: str | None = None
    """Name of the stable revision."""
    candidate: str | None = None
    """Name of the candidate. Absent: there is no rollout."""
    weight: int | None = None
    """Weight of the candidate in percent. Absent: there is no rollout."""
    rollout: RolloutStatus | None = None
    """The current rollout, or the failed one. Absent: the last rollout succeeded."""
    request: RequestStatus | None = None
    """Request in the annotation conch.dev/rollout, and its result."""
    ready: str | None = None
    """Numbers of ready and desired pods of all revisions, such as 2/3."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of a type; None: it is absent."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class VariantStatus(_Track):
    """Status of a variant. Its conditions cover the variant only; those of the InferenceService cover all."""

    name: str
    """Name of the variant."""
    mirror: str | None = None
    """Arriving: Triton's counters show that the variant gets the copies of requests. Missing: they do not. Absent: not
    known, or the gateway reports support for mirrors."""


class Status(_Track):
    """Observed state of an InferenceService."""

    observed_generation: int | None = None
    """Generation of the InferenceService that the status is computed from. -1: the operator has not read it yet."""
    installation: Text | None = None
    """Installation of Conch that serves the InferenceService: namespace and name of its Lease. Other installations do
    not write it while that Lease is renewed."""
    model: ServedModel | None = None
    """The model as clients name it."""
    revisions: Annotated[tuple[RevisionStatus, ...], list_map_key("name")] = ()
    """Revisions with a Deployment, newest first, those of the predictor before those of variants."""
    variants: Annotated[tuple[VariantStatus, ...], list_map_key("name")] = ()
    """Variants, in the order of the spec."""

    def of_variant(self, name: str) -> Self:
        """Return the status of a variant in the form of that of a service; an empty name is the predictor."""
        revisions = tuple(revision for revision in self.revisions if (revision.variant or "") == name)
        if not name:
            return self.model_copy(update={"revisions": revisions, "variants": ()})
        variant = next((each for each in self.variants if each.name == name), VariantStatus(name=name))
        fields = {field: getattr(variant, field) for field in _Track.model_fields}
        return self.model_copy(update={**fields, "revisions": revisions, "variants": ()})

    def to_wire(self) -> dict[str, Any]:
        """Return the written status, with zeros (such as no ready pods), and without absent fields and empty lists."""
        wire = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {field: value for field, value in wire.items() if value != []}

    @classmethod
    def lenient(cls, body: Mapping[str, Any]) -> Self:
        """Return the status of an object, without the parts that cannot be parsed."""
        parts = {field: _drop_undated(value) for field, value in body.items()}
        while True:
            try:
                return cls.model_validate(parts)
            except ValidationError as error:
                for field in {str(each["loc"][0]) for each in error.errors() if each["loc"]} or set(parts):
                    parts.pop(field, None)

    def limit_times(self, now: float) -> Self:
        """Return the status with `now` (seconds since the epoch) in place of each later time that decisions depend on.

        A time is later if the clock has been set back, or if that of another replica is ahead. Waits would be longer.
        """
        return _limit_times(self, now)

    def revision(self, name: str) -> RevisionStatus | None:
        """Return the revision of a name; None: it has no Deployment."""
        return next((revision for revision in self.revisions if revision.name == name), None)


# Times that decisions depend on. A rollout without a start time is dropped, unless it has failed.
_TIMES: Final = ("since", "started", "evaluated_at", "unavailable_since", "stable_unavailable_since")
_WIRE_TIMES: Final = frozenset(to_camel(field) for field in _TIMES)
_PartOfStatus = TypeVar("_PartOfStatus", bound=Part)


def _drop_undated(value: Any) -> Any:
    """Return a part of a status without values that are not times, and without rollouts that lack a start time."""
    if isinstance(value, list):
        return [_drop_undated(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    parts = {key: _drop_undated(item) for key, item in value.items() if key not in _WIRE_TIMES or is_time(item)}
    is_under_way = "step" in parts and parts.get("phase") != RolloutPhase.FAILED
    return None if is_under_way and "since" not in parts else parts


def _limit_times(part: _PartOfStatus, now: float) -> _PartOfStatus:
    """Return a part of a status without times after `now`; the same object if it has none."""
    update: dict[str, object] = {}
    for field in type(part).model_fields:
        value = getattr(part, field)
        if field in _TIMES and value and parse_time(value) > now:
            update[field] = format_time(now)
        elif isinstance(value, Part) and (past := _limit_times(value, now)) is not value:
            update[field] = past
        elif isinstance(value, tuple):
            items = tuple(_limit_times(each, now) if isinstance(each, Part) else each for each in value)
            if any(new is not old for new, old in zip(items, value, strict=True)):
                update[field] = items
    return part.model_copy(update=update) if update else part
