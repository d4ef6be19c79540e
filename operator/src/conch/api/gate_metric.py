"""What the metrics of gates have in common."""

from abc import ABC, abstractmethod

from conch.api._base import Part


class GateMetric(Part, ABC):
    """What a gate measures of a candidate, and the bound of it: one field of a gate."""

    @property
    @abstractmethod
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""

    @property
    def default_samples(self) -> int:
        """The requests that an evaluation needs where minSamples is absent; 0: it counts no requests."""
        return 0


class UnknownMetric(GateMetric):
    """A metric of a newer version of the CRD."""

    @property
    def gate_name(self) -> str:
        """The name of a gate that has none of its own."""
        return "unknown"
