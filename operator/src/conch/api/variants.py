"""Long-lived variants of the predictor: for A/B tests, and shadows that answer nobody.

A variant says what it has otherwise than the predictor; the rest it takes from there.
"""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from conch.api._base import Part, keyed_by
from conch.api.autoscaling import Autoscaling
from conch.api.cel import Rule, rules
from conch.api.model import ModelFormat, Storage, StorageUri, secret_rule
from conch.api.numbers import Percent
from conch.api.pod import LongestRequest, Pod, Resources
from conch.api.traffic import HeaderName
from conch.api.triton import Triton
from conch.api.warmup import Warmup

# An HTTPRoute has at most 16 rules and 16 backends in a rule: two for each variant, and two for the predictor.
MAX_VARIANTS: Final = 7
# What of a predictor is merged field by field; a variant that says another field replaces it.
MERGED: Final = ("model", "pod")


class VariantModel(Part):
    """Another model, under the same name: clients ask for one model, whichever variant answers."""

    model_config = ConfigDict(json_schema_extra=rules(secret_rule(uri_present="has(self.storageUri)")))

    model_format: ModelFormat | None = None
    """How its files are to be read."""
    storage_uri: StorageUri | None = None
    """Where its files are."""
    storage: Storage | None = None
    """How the store is reached. Absent: as the predictor reaches it, if storageUri has the same scheme."""


class VariantPredictor(Part):
    """What a variant has otherwise: model and pod field by field, any other field as a whole."""

    model: VariantModel | None = None
    """Which model is served, and where its files are."""
    triton: Triton | None = None
    """How Triton serves it."""
    resources: Resources | None = None
    """What Triton's container asks of the node."""
    min_replicas: Annotated[int | None, Field(ge=0, le=10_000)] = None
    """The number of pods, and with autoscaling the smallest one."""
    max_replicas: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """The largest number of pods."""
    autoscaling: Autoscaling | None = None
    """What the number of pods follows."""
    warmup: Warmup | None = None
    """How the model is warmed before users reach it."""
    longest_request: LongestRequest | None = None
    """Duration for which a terminating pod answers what it has begun."""
    pod: Pod | None = None
    """What goes into the pods besides the model."""


class Header(Part):
    """A header of a request, or an entry of a gRPC call's metadata."""

    name: HeaderName
    """Its name, in lower case; a request may write it in upper case as well."""
    value: Annotated[str, Field(min_length=1, max_length=1024)]
    """Its value, exactly."""


class Match(Part):
    """What a request must have."""

    headers: Annotated[tuple[Header, ...], Field(min_length=1, max_length=8), keyed_by("name")]
    """Headers that it must have, all of them."""


class Variant(Part):
    """One variant, and which requests it gets. Without weight, match and mirror: those to its own Service alone."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.weight), has(self.match), has(self.mirror)].filter(said, said).size() <= 1",
                message="a variant gets its requests by weight, by match or by mirror; say one of them, and make a"
                " second variant for the other",
            ),
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=20),
        Rule(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            message="a variant's name holds only a-z, 0-9 and -, and neither begins nor ends with -; choose a"
            " plainer one, such as int8",
        ),
    ]
    """Its name. Its objects are called <service>-<name>, and so is the Service that reaches it alone."""
    weight: Annotated[
        int | None,
        Field(le=99),
        Rule("self >= 1", message="weight must be at least 1; remove the variant, or its weight, to send it nothing"),
    ] = None
    """Its share of the requests that no variant's match claims, in percent. The predictor has the rest."""
    match: Annotated[tuple[Match, ...], Field(min_length=1, max_length=4)] = ()
    """It gets the requests that have the headers of any of these, and no others."""
    mirror: Annotated[
        Percent | None,
        Rule("self.matches('[1-9]')", message="mirror must be above 0%; remove the variant, or its mirror"),
    ] = None
    """It gets a copy of this share of the requests that no variant's match claims. Its answers reach nobody."""
    predictor: VariantPredictor = VariantPredictor()
    """What it has otherwise than spec.predictor."""

    @property
    def routed(self) -> bool:
        """Whether requests reach it by the service's own way."""
        return bool(self.weight or self.match or self.mirror)


def merge(predictor: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Lay what a variant says over the predictor; both as on the wire.

    >>> merge({"model": {"storageUri": "s3://m/a", "name": "m"}, "minReplicas": 2}, {"model": {"storageUri": "s3://m/b"}})
    {'model': {'storageUri': 's3://m/b', 'name': 'm'}, 'minReplicas': 2}
    """
    merged = {**predictor, **said}
    for field in MERGED:
        if field in predictor and field in said:
            merged[field] = {**predictor[field], **said[field]}
    model, other = predictor.get("model") or {}, said.get("model") or {}
    if "storageUri" in other and "storage" not in other and _scheme(other) != _scheme(model):
        merged["model"] = {key: value for key, value in merged["model"].items() if key != "storage"}
    return merged


def _scheme(model: dict[str, Any]) -> str:
    return str(model.get("storageUri", "")).partition("://")[0]
