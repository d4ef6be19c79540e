"""A metric that this version of Conch does not know."""

from conch.api.gate_metric import UnknownMetric
from conch.decide.gates.metric import Metric, NoMeasurement
from conch.observe.measured import Measured


class UnknownGateMetric(Metric[UnknownMetric]):
    """Never passes."""

    @property
    def bound(self) -> str:
        """Empty: it has no bound."""
        return ""

    @property
    def pending(self) -> str:
        """The message with the remedy."""
        return "This version of Conch does not know the metric of the gate; upgrade Conch, or change the gate."

    def measure(self, measured: Measured, start: float, now: float) -> NoMeasurement:
        """Return no value."""
        del measured, start, now
        return NoMeasurement(self.pending)
