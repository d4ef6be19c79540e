"""Base class and common field types of the resource: frozen, camelCase on the wire, tolerant of unknown fields.

Unknown fields are ignored here, because the API server has already pruned or refused them, and an older operator must
read objects of a newer CRD. The CRD's schema validates manifests.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from conch.api.cel import Rule

_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|us|s)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


class Part(BaseModel):
    """A frozen part of the resource; its attribute docstrings become the CRD's descriptions."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """Drop nulls, as the API server does where a field is not nullable."""
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return value

    def to_wire(self) -> dict[str, Any]:
        """Return the part in camelCase, without fields that are unset or have their default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as `2ms`, `500us`, `1.5s` or `1h30m`.

    The grammar is Go's time.ParseDuration without sign and nanoseconds, so that CEL's duration() agrees.

    Raises:
        ValueError: `text` is not a duration.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 500us, 2ms, 30s or 15m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def is_duration(text: str) -> bool:
    """Return whether `duration_seconds` can parse a text.

    >>> is_duration("2m"), is_duration(""), is_duration("soon")
    (True, False, False)
    """
    try:
        duration_seconds(text)
    except ValueError:
        return False
    return True


DURATION_PATTERN: Final = r"^([0-9]{1,6}([.][0-9]{1,3})?(h|ms|m|us|s)){1,4}$"

# CEL's duration() counts nanoseconds in 64 bits and fails beyond: four parts of 99999 hours fit.
_TOO_LONG: Final = "self.matches('[0-9]{6}[.0-9]*h')"


def cel_is_duration(low: str = "0s", high: str = "8760h") -> str:
    """Return CEL that is true for the text of a duration within bounds.

    Args:
        low: The least duration.
        high: The longest duration. Durations become fields of 32 bits of seconds (progressDeadlineSeconds,
            activeDeadlineSeconds), which hold 68 years.
    """
    above = "" if low == "0s" else f" && duration(self) >= duration('{low}')"
    return f"self.matches('{DURATION_PATTERN}') && !{_TOO_LONG}{above} && duration(self) <= duration('{high}')"


def duration_rule(low: str = "0s", high: str = "8760h", example: str = "500us, 2ms, 30s or 15m") -> Rule:
    """Return the rule of a text that is a duration within bounds.

    It is one rule, not one of the form and one of the bounds, because the CRD has more than twenty durations.

    Args:
        low: The least duration.
        high: The longest duration.
        example: Durations that the message suggests.
    """
    return Rule(
        cel_is_duration(low, high),
        message=f"must be a duration from {low} to {high}; write a number and a unit (us, ms, s, m, h), such as"
        f" {example}",
    )


DurationText = Annotated[str, Field(max_length=32)]
"""The text of a duration, for fields with bounds of their own: `duration_rule` is their rule."""

Duration = Annotated[DurationText, duration_rule()]
"""A duration as text, such as 30s. The API server validates it; `duration_seconds` parses it."""


# A structural schema has no "one of these types". A node without a type still obeys the bounds of lists and of objects:
# with a minimum above the maximum, no list or no object is possible.
_NO_OBJECT: Final[dict[str, Any]] = {
    "x-kubernetes-preserve-unknown-fields": True,
    "minProperties": 1,
    "maxProperties": 0,
}
SCALAR: Final[dict[str, Any]] = {**_NO_OBJECT, "minItems": 1, "maxItems": 0}

Scalars = Annotated[dict[str, Any], Field(max_length=64, json_schema_extra={"additionalProperties": SCALAR})]
"""Strings, numbers and booleans by name."""


def list_schema(depth: int) -> dict[str, Any]:
    """Return the schema of a list of scalars that may be nested up to `depth` levels."""
    node = SCALAR
    for _ in range(depth - 1):
        node = {**_NO_OBJECT, "items": node}
    return {"type": "array", "maxItems": 1_000_000, "items": node}  # more than an object of Kubernetes can hold


def list_map_key(key: str) -> Any:
    """Return the field of a list with a key: items are unique by the key, and server-side apply merges by it."""
    return Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""The name of a Kubernetes object (DNS-1123 subdomain)."""


class ConfigMapRef(Part):
    """Reference to a ConfigMap in the namespace of the InferenceService."""

    name: ObjectName
    """Name of the ConfigMap."""
