"""Base class of the metrics of gates."""

from abc import ABC, abstractmethod

from conch.api._base import Part


class GateMetric(Part, ABC):
    """A metric of a candidate and its bound: one field of a gate."""

    @property
    @abstractmethod
    def gate_name(self) -> str:
        """Default name of the gate."""

    @property
    def default_samples(self) -> int:
        """Default of minSamples; 0: the metric counts no requests."""
        return 0


class UnknownMetric(GateMetric):
    """A metric of a newer version of the CRD."""

    @property
    def gate_name(self) -> str:
        """Default name of the gate."""
        return "unknown"
