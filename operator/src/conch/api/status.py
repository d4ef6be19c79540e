"""What the operator tells of a service. Only the operator writes it, through the status subresource.

Every field is optional and no enumeration stands in its schema: an operator that is newer than the
CRD, or older than the status, must still read and write it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from conch.api._base import Part, keyed_by
from conch.api.analysis import GateStatus
from conch.api.names import RolloutPhase
from conch.api.rollout import StepInForce
from conch.api.text import Text
from conch.api.times import format_time, is_time, parse_time
from conch.api.warmup import WarmupStatus

# What status.observedGeneration is before the operator has read a service for the first time.
NOT_OBSERVED: Final = -1


class Condition(Part):
    """One aspect of the service's state (metav1.Condition)."""

    type: str
    """What is told: Ready, Serving, RolloutComplete, Autoscaling, Reconciling or Stalled."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Text
    """Why, in one CamelCase word."""
    message: Text = ""
    """Why, in a sentence."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` last changed."""
    observed_generation: int | None = None
    """The generation of the service that this speaks of."""


class ServedModel(Part):
    """The model as a client names it."""

    name: str
    """The name in Triton: the <model> of /v2/models/<model>/infer."""


class ModelWarning(Part):
    """A fact about a model that does not stop it."""

    reason: Text
    """ConfigOverridden, ModelRenamed, CalleeMissing, SequenceState or WarmupChanged."""
    message: Text = ""
    """What differs, and what to do about it."""


class ModelStatus(Part):
    """One model of a revision, as its pods report it."""

    name: str
    """The name in Triton."""
    versions: tuple[int, ...] = ()
    """The versions that Triton serves."""
    state: str = ""
    """Pending, Fetching, Loading, Warming, Ready or Failed: the least advanced pod speaks."""
    reason: Text = ""
    """Why it is not ready, in one CamelCase word."""
    message: Text = ""
    """Why it is not ready, in Triton's or the store's own words."""
    digest: str = ""
    """The digest of the files that were fetched: sha256:..."""
    sequences: bool = False
    """Whether it has sequence_batching: Triton keeps the state of a sequence in one pod."""
    warnings: Annotated[tuple[ModelWarning, ...], keyed_by("reason")] = ()
    """Where the spec overrides the model's config.pbtxt, and what the model calls that is not served."""


class ReplicaStatus(Part):
    """The pods of a revision."""

    ready: int = 0
    """Pods that answer requests."""
    wanted: int = 0
    """Pods that there should be."""


class RevisionStatus(Part):
    """One living revision of the service."""

    name: str
    """The name of its Deployment and of its ControllerRevision."""
    variant: str | None = None
    """The variant that it is of; absent: the predictor."""
    number: int = 0
    """Its place among the revisions of the service, counted from 1."""
    generation: int = 0
    """The generation of the service that made it."""
    phase: str = ""
    """Pending, Fetching, Loading, Warming, Ready, Failed or ScaledToZero."""
    weight: int = 0
    """Its share of the requests, in percent."""
    replicas: ReplicaStatus = ReplicaStatus()
    """Its pods, ready and wanted."""
    images: tuple[str, ...] = ()
    """The images of Triton that its ready pods run, by digest, as their nodes report them. Several: the tag has been
    moved to another image."""
    models: tuple[ModelStatus, ...] = ()
    """Its models, as its pods report them."""
    warmup: WarmupStatus | None = None
    """What the warm-up before its first share of the requests saw; absent where there was none."""
    since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """When it entered its phase."""


class RolloutStatus(Part):
    """The rollout of one revision: what it waits for, or why it failed. This is the operator's memory of it."""

    revision: str
    """The candidate; or the revision that the spec asks for and that failed."""
    strategy: str = ""
    """The strategy in force: Progressive; Recreate, also where GPUs are insufficient for the pods of both revisions; or
    Replace, where the stable revision has never had a ready pod, so that there are no steps."""
    phase: str = ""
    """Progressing, Paused or Failed."""
    steps: tuple[StepInForce, ...] = ()
    """The steps in force: under Progressive those of spec.rollout.steps, and weight 100 at the end."""
    step: int = 0
    """The step under way, counted from 0 in `steps`; the number of steps when all are done."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = ""
    """When that step began."""
    started: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = ""
    """When the rollout began."""
    weight: int = 0
    """The candidate's desired share of the requests, in percent."""
    observed_weight: int = 0
    """The candidate's share of the requests in percent, as the route or the EndpointSlices show it."""
    unavailable_since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Since when no pod of the candidate is ready, though it has a weight. The stable revision gets its requests until
    the candidate has its pods again. Absent otherwise."""
    stable_unavailable_since: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """Since when no pod of the stable revision is ready, while the parity gate has to compare the candidate with it.
    Absent otherwise."""
    capacity: int = 0
    """The ready pods that carried the service when the rollout began, and that are kept until it ends."""
    admission: str = ""
    """Whether GPUs are free for its pods beside those of the stable revision, decided once: Pending, Admitted,
    Insufficient (the strategy is Recreate), Unknown or Overridden. Absent where its pods request none."""
    reason: Text = ""
    """What it waits for, or why it failed, in one CamelCase word."""
    message: Text = ""
    """The same in a sentence."""
    gates: Annotated[tuple[GateStatus, ...], keyed_by("name")] = ()
    """What each gate of rollout.analysis says of the candidate."""
    request: str = ""
    """The last request of a person (annotation conch.dev/rollout) that was acted on."""


class RequestStatus(Part):
    """A request in the annotation conch.dev/rollout, and its result."""

    text: Text
    """The annotation's value."""
    state: str = ""
    """Done, Refused, or Pending: it is for a later generation of the spec."""
    message: Text = ""
    """Why it was refused, and what to write instead."""


class _Track(Part):
    """What is told of the predictor, and of each variant."""

    conditions: Annotated[tuple[Condition, ...], keyed_by("type")] = ()
    """Ready, Serving, RolloutComplete, Autoscaling, TrafficProgrammed; Reconciling and Stalled only while true."""
    url: str | None = None
    """Where clients in the cluster send requests (HTTP; gRPC is on port 8001 of the same host)."""
    stable: str | None = None
    """The revision that serves."""
    candidate: str | None = None
    """The revision that is about to replace the stable one; absent when the rollout is over."""
    weight: int | None = None
    """The candidate's share of the requests, in percent; absent when there is none."""
    rollout: RolloutStatus | None = None
    """The rollout under way, or the one that failed."""
    request: RequestStatus | None = None
    """The request in the annotation conch.dev/rollout, and its result."""
    ready: str | None = None
    """Pods ready of pods wanted, over all revisions: 2/3."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of that type, None when it is absent."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class VariantStatus(_Track):
    """What is told of a variant. Its Ready says no more than that; the service's speaks for all."""

    name: str
    """Its name."""
    mirror: str | None = None
    """Whether copies of requests arrive, as Triton's counters tell where the gateway does not: Arriving or Missing."""


class Status(_Track):
    """What the operator last saw and did."""

    observed_generation: int | None = None
    """The service's generation that the conditions speak of. -1: the operator has not read the service yet."""
    installation: Text | None = None
    """The installation of Conch that serves it: namespace and name of its Lease. No other one writes the service while
    that Lease is renewed."""
    model: ServedModel | None = None
    """The model as clients name it."""
    revisions: Annotated[tuple[RevisionStatus, ...], keyed_by("name")] = ()
    """The living revisions, newest first; the predictor's before those of variants."""
    variants: Annotated[tuple[VariantStatus, ...], keyed_by("name")] = ()
    """The variants, in the spec's order."""

    def of_variant(self, name: str) -> Self:
        """Return what is told of one variant as if it were a service; an empty name means the predictor."""
        revisions = tuple(revision for revision in self.revisions if (revision.variant or "") == name)
        if not name:
            return self.model_copy(update={"revisions": revisions, "variants": ()})
        told = next((variant for variant in self.variants if variant.name == name), VariantStatus(name=name))
        fields = {field: getattr(told, field) for field in _Track.model_fields}
        return self.model_copy(update={**fields, "revisions": revisions, "variants": ()})

    def to_wire(self) -> dict[str, Any]:
        """Return what is written: a zero is news here (no pod is ready), what is absent or an empty list stays out."""
        wire = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {field: value for field, value in wire.items() if value != []}

    @classmethod
    def lenient(cls, body: Mapping[str, Any]) -> Self:
        """Read a status of any writer; a part that cannot be parsed is read as absent."""
        parts = {field: _dated(value) for field, value in body.items()}
        while True:
            try:
                return cls.model_validate(parts)
            except ValidationError as error:
                for field in {str(each["loc"][0]) for each in error.errors() if each["loc"]} or set(parts):
                    parts.pop(field, None)

    def without_future(self, now: float) -> Self:
        """Return the status with no time that decisions depend on after `now`, in seconds since the epoch.

        There is one when the clock has been set back since, or another replica's runs ahead: waits would last longer.
        """
        return _without_future(self, now)

    def revision(self, name: str) -> RevisionStatus | None:
        """Return the revision of that name, None when it is not among the living."""
        return next((revision for revision in self.revisions if revision.name == name), None)


# Times that decisions depend on. A rollout that began at no time is none, unless it has failed: that is remembered.
_TIMES: Final = ("since", "started", "evaluated_at", "unavailable_since", "stable_unavailable_since")
_WIRE_TIMES: Final = frozenset(to_camel(field) for field in _TIMES)
_PartOfStatus = TypeVar("_PartOfStatus", bound=Part)


def _dated(value: Any) -> Any:
    """Return a part of a status without times that are none, and without rollouts that began at none."""
    if isinstance(value, list):
        return [_dated(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    parts = {key: _dated(item) for key, item in value.items() if key not in _WIRE_TIMES or is_time(item)}
    is_under_way = "step" in parts and parts.get("phase") != RolloutPhase.FAILED
    return None if is_under_way and "since" not in parts else parts


def _without_future(part: _PartOfStatus, now: float) -> _PartOfStatus:
    """Return a part of a status with no time after `now`; the same one where there is none."""
    update: dict[str, object] = {}
    for field in type(part).model_fields:
        value = getattr(part, field)
        if field in _TIMES and value and parse_time(value) > now:
            update[field] = format_time(now)
        elif isinstance(value, Part) and (past := _without_future(value, now)) is not value:
            update[field] = past
        elif isinstance(value, tuple):
            items = tuple(_without_future(each, now) if isinstance(each, Part) else each for each in value)
            if any(new is not old for new, old in zip(items, value, strict=True)):
                update[field] = items
    return part.model_copy(update=update) if update else part
