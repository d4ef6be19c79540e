"""Parity: a candidate must answer as the stable revision does, on requests that are replayed to both.

A metric of gates (`conch.api.analysis`) that needs no users: it is evaluated before the candidate's first share.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.gate_metric import GateMetric
from conch.api.numbers import NUMBER_PATTERN, Number, Percent


class ArgMax(Part):
    """The index of the largest value along the last axis must be the same: the class that the model chooses."""


class Compare(Part):
    """When two answers agree: exactly one of tolerance, cosine and argmax."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.tolerance), has(self.cosine), has(self.argmax)].filter(set, set).size() == 1",
                message="answers are compared in one way: exactly one of tolerance, cosine and argmax; keep one, or"
                " remove compare for a tolerance of 0.1%",
            ),
        )
    )

    tolerance: Percent | None = None
    """How far a floating-point value may be from the stable revision's: a share of it, at least of 1. All other
    values must be equal."""
    cosine: (
        Annotated[
            Number,
            Rule(
                f"!string(self).matches('{NUMBER_PATTERN}')"
                " || (double(string(self)) > 0.0 && double(string(self)) <= 1.0)",
                message="a cosine is above 0 and at most 1; write one such as '0.999'",
            ),
        ]
        | None
    ) = None
    """The least cosine between two vectors along the last axis, such as '0.999': for embeddings."""
    argmax: ArgMax | None = None
    """Write {}: the largest value along the last axis must stand in the same place. For classifiers."""


class Parity(GateMetric):
    """The share of replayed requests to which candidate and stable revision answer alike."""

    min_agreement: Percent = "99%"
    """The least share of the requests that must agree."""
    compare: Compare | None = None
    """When two answers agree. Absent: within a tolerance of 0.1%."""
    outputs: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=32)] = ()
    """The outputs that are compared. Empty: all that both answer."""
    requests: Annotated[int, Field(ge=1, le=1000)] = 20
    """How many different requests are made where predictor.warmup holds none; those that it holds are all sent."""

    @property
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""
        return "parity"

    @property
    def way(self) -> Literal["tolerance", "cosine", "argmax"]:
        """How answers are compared."""
        if self.compare is None or self.compare.tolerance is not None:
            return "tolerance"
        return "cosine" if self.compare.cosine is not None else "argmax"
