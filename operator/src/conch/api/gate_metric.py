"""Base classes of the metrics of gates."""

from abc import ABC, abstractmethod
from typing import ClassVar

from conch.api._base import Part


class GateMetric(Part, ABC):
    """A metric of a candidate and its bound: one field of a gate."""

    @property
    @abstractmethod
    def gate_name(self) -> str:
        """Default name of the gate."""


class RequestMetric(GateMetric):
    """A metric of the candidate's requests, of which an evaluation needs a minimum number."""

    @property
    @abstractmethod
    def default_samples(self) -> int:
        """Default of minSamples, at least 1."""


class ResultMetric(GateMetric):
    """A metric with a result that another program computes. minSamples does not apply to it.

    Attributes:
        instead_of_min_samples: Why minSamples does not apply, and the remedy, as the end of an error message.
    """

    instead_of_min_samples: ClassVar[str]


class JobGateMetric(ResultMetric):
    """A metric that a revision Job measures once, before the candidate gets requests of clients.

    Attributes:
        needs_stable: Whether the Job needs a ready pod of the stable revision.
        use_of_warmup: The use of predictor.warmup by the Job, as a clause of an error message; empty: it needs none.
        instead_of_failure_limit: The remedy where failureLimit is set, as the end of an error message.
        instead_of_another: The remedy where a rollout has two such gates, as the end of an error message.
    """

    needs_stable: ClassVar[bool] = False
    use_of_warmup: ClassVar[str] = ""
    instead_of_failure_limit: ClassVar[str]
    instead_of_another: ClassVar[str]


class UnknownMetric(GateMetric):
    """A metric of a newer version of the CRD."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return "unknown"
