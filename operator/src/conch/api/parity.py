"""Parity: the metric of gates that compares the answers of candidate and stable revision to replayed requests.

It is evaluated once, before the candidate gets requests of clients.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from conch.api._base import Part
from conch.api.cel import Rule, rules
from conch.api.gate_metric import JobGateMetric
from conch.api.numbers import NUMBER_PATTERN, Number, Percent


class ArgMax(Part):
    """Answers agree if the index of the largest value along the last axis is the same: the class of a classifier."""


class Compare(Part):
    """Comparison of two answers: exactly one of tolerance, cosine and argmax."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.tolerance), has(self.cosine), has(self.argmax)].filter(set, set).size() == 1",
                message="compare has exactly one of tolerance, cosine and argmax; keep one, or remove compare for a"
                " tolerance of 0.1%",
            ),
        )
    )

    tolerance: Percent | None = None
    """Maximum difference of floating-point values, in percent of the larger of 1 and the stable revision's absolute
    value. Values of other types must be equal."""
    cosine: (
        Annotated[
            Number,
            Rule(
                f"!string(self).matches('{NUMBER_PATTERN}')"
                " || (double(string(self)) > 0.0 && double(string(self)) <= 1.0)",
                message="cosine must be above 0 and at most 1; write a number such as '0.999'",
            ),
        ]
        | None
    ) = None
    """Minimum cosine similarity of the vectors along the last axis, such as '0.999'. For embeddings."""
    argmax: ArgMax | None = None
    """Written as {}: the index of the largest value along the last axis must be equal. For classifiers."""


class Parity(JobGateMetric):
    """Share of replayed requests to which candidate and stable revision answer alike."""

    needs_stable: ClassVar[bool] = True
    use_of_warmup: ClassVar[str] = "whose requests it replays"
    instead_of_min_samples: ClassVar[str] = "which replays each request once; remove minSamples, or set parity.requests"
    instead_of_failure_limit: ClassVar[str] = "lower parity.minAgreement"
    instead_of_another: ClassVar[str] = "name all outputs in one gate, or keep the strictest"

    min_agreement: Percent = "99%"
    """Minimum share of requests with answers that agree, in percent."""
    compare: Compare | None = None
    """Comparison of two answers. Absent: with a tolerance of 0.1%."""
    outputs: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=32)] = ()
    """Names of the outputs that are compared. Empty: all outputs that both revisions return."""
    requests: Annotated[int, Field(ge=1, le=1000)] = 20
    """Number of generated requests, each with different values, if predictor.warmup has none. All requests that it has
    are sent."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return "parity"

    @property
    def method(self) -> Literal["tolerance", "cosine", "argmax"]:
        """The method of the comparison."""
        if self.compare is None or self.compare.tolerance is not None:
            return "tolerance"
        return "cosine" if self.compare.cosine is not None else "argmax"
