"""Variants of the predictor, for A/B tests and shadows.

A variant has the fields in which it differs from the predictor. It takes the others from there.
"""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from conch.api._base import Part, list_map_key
from conch.api.autoscaling import Autoscaling
from conch.api.cel import Rule, rules
from conch.api.model import ModelFormat, Storage, StorageUri, mirror_rule, secret_rule, watch_rule
from conch.api.models import MAX_MODELS, VariantNamedModel
from conch.api.numbers import Percent
from conch.api.pod import LongestRequest, Pod, Resources
from conch.api.traffic import HeaderName
from conch.api.triton import Triton
from conch.api.warmup import Warmup

# An HTTPRoute has at most 16 rules and 16 backends in a rule: two for each variant, and two for the predictor.
MAX_VARIANTS: Final = 7
# Fields of a predictor that are merged field by field, as each of models is; all others are replaced as a whole.
MERGED: Final = ("model", "pod")


class VariantModel(Part):
    """The model of a variant. It has the same name as that of the predictor."""

    model_config = ConfigDict(
        json_schema_extra=rules(*(rule("has(self.storageUri)") for rule in (secret_rule, watch_rule, mirror_rule)))
    )

    model_format: ModelFormat | None = None
    """Format of the model's files. Absent: that of the predictor."""
    storage_uri: StorageUri | None = None
    """URI of the model's files. Absent: that of the predictor."""
    storage: Storage | None = None
    """Access to the storage, and checks of its files. Absent: what of the predictor's fits storageUri."""


class VariantPredictor(Part):
    """Differences of a variant from the predictor. model, models and pod are merged by field; others replace it."""

    model: VariantModel | None = None
    """Differences of the model."""
    models: Annotated[tuple[VariantNamedModel, ...], Field(max_length=MAX_MODELS), list_map_key("name")] = ()
    """Differences of models of several, by name."""
    triton: Triton | None = None
    """Configuration of the model in Triton, and flags of Triton. Absent: that of the predictor."""
    resources: Resources | None = None
    """Resource requests and limits of Triton's container. Absent: those of the predictor."""
    min_replicas: Annotated[int | None, Field(ge=0, le=10_000)] = None
    """Number of pods of a revision; with autoscaling their minimum. Absent: that of the predictor."""
    max_replicas: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """Maximum number of pods of a revision. Absent: that of the predictor."""
    autoscaling: Autoscaling | None = None
    """Metrics and behavior of the autoscaling. Absent: those of the predictor."""
    warmup: Warmup | None = None
    """Warm-up of the model before its first request of a client. Absent: that of the predictor."""
    longest_request: LongestRequest | None = None
    """Maximum duration of a request or gRPC stream, between 1s and 12h. Absent: that of the predictor."""
    pod: Pod | None = None
    """Settings of the pods, merged by field with those of the predictor."""


class Header(Part):
    """A header of a request, or an entry of gRPC metadata."""

    name: HeaderName
    """Name of the header in lower case. Requests may have it in any case."""
    value: Annotated[str, Field(min_length=1, max_length=1024)]
    """Value of the header, compared exactly."""


class Match(Part):
    """Headers that a request must have."""

    headers: Annotated[tuple[Header, ...], Field(min_length=1, max_length=8), list_map_key("name")]
    """Headers that a request must have, all of them."""


class Variant(Part):
    """A variant and its requests. Without weight, match and mirror it gets those to its own Service only."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.weight), has(self.match), has(self.mirror)].filter(set, set).size() <= 1",
                message="a variant has at most one of weight, match and mirror; keep one, and add a second variant for"
                " the other",
            ),
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=20),
        Rule(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            message="a variant's name has only a-z, 0-9 and -, and neither begins nor ends with -; choose a simpler"
            " one, such as int8",
        ),
    ]
    """Name of the variant. Its own Service is <service>-<name>."""
    weight: Annotated[
        int | None,
        Field(le=99),
        Rule("self >= 1", message="weight must be at least 1; to send no requests, remove the variant or its weight"),
    ] = None
    """Weight of the variant in percent, from 1 to 99, of the requests that no match selects. The predictor has the
    rest."""
    match: Annotated[tuple[Match, ...], Field(min_length=1, max_length=4)] = ()
    """Matches by header. The variant gets the requests of any of them, and no others."""
    mirror: Annotated[
        Percent | None,
        Rule(
            "self.matches('[1-9]')",
            message="mirror must be above 0%; to send no copies, remove the variant or its mirror",
        ),
    ] = None
    """Share in percent, such as 10%, of the requests that no match selects, of which the variant gets copies. Its
    answers are dropped."""
    predictor: VariantPredictor = VariantPredictor()
    """Differences from spec.predictor."""

    @property
    def routed(self) -> bool:
        """True if the route of the service sends requests or copies to the variant."""
        return bool(self.weight or self.match or self.mirror)


def merge(predictor: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the predictor of a variant from the main predictor and the variant's changes, in camelCase.

    >>> merge({"model": {"storageUri": "s3://m/a", "name": "m"}, "minReplicas": 2}, {"model": {"storageUri": "s3://m/b"}})
    {'model': {'storageUri': 's3://m/b', 'name': 'm'}, 'minReplicas': 2}
    """
    merged = {**predictor, **changes}
    if "pod" in predictor and "pod" in changes:
        merged["pod"] = {**predictor["pod"], **changes["pod"]}
    if "model" in predictor and "model" in changes:
        merged["model"] = _merge_model(predictor["model"], changes["model"])
    if "models" in predictor and "models" in changes:
        by_name = {model["name"]: model for model in changes["models"]}
        merged["models"] = [_merge_model(model, by_name.get(model["name"], {})) for model in predictor["models"]]
    return merged


def _merge_model(model: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a model with changes; of its storage, what fits another storageUri."""
    merged = {**model, **changes}
    if "storage" not in changes and "storageUri" in changes:
        merged.pop("storage", None)
        if storage := _fit_storage(model, changes):
            merged["storage"] = storage
    return merged


def _fit_storage(model: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the storage of a model for another storageUri: without digest and mirrors, and if need be its Secret."""
    storage = dict(model.get("storage", {}))
    if _scheme(changes) != _scheme(model):
        storage.pop("secretRef", None)
    if _scheme(changes) == "file":
        storage = {field: value for field, value in storage.items() if field not in {"watch", "refresh"}}
    if changes["storageUri"] != model.get("storageUri"):
        storage.pop("mirrors", None)
        storage["verify"] = {check: value for check, value in storage.get("verify", {}).items() if check != "digest"}
    return {field: value for field, value in storage.items() if value}


def _scheme(model: dict[str, Any]) -> str:
    return str(model.get("storageUri", "")).partition("://")[0]
