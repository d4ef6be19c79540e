"""Base classes of the metrics of gates. Each metric of the spec has a subclass of `Metric`, in a file of its own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from conch.api.analysis import Gate
from conch.api.gate_metric import GateMetric, RequestMetric
from conch.observe.measured import Measured, Window

# Seconds after which counters are stale, since the pods cannot be read.
STALE: Final = 30.0
Spec = TypeVar("Spec", bound=GateMetric)
RequestSpec = TypeVar("RequestSpec", bound=RequestMetric)


@dataclass(frozen=True)
class Measurement:
    """A value and its comparison with the bound.

    Attributes:
        passed: whether the value is within the bound.
        value: the value with its unit, as in the status.
        message: the comparison, such as "Success rate 99.5% over 200 requests is below the minimum of 99.9%".
        samples: the number of requests that it is computed from; None: the metric counts no requests.
    """

    passed: bool
    value: str
    message: str
    samples: int | None = None


@dataclass(frozen=True)
class NoMeasurement:
    """The absence of a value.

    Attributes:
        message: the reason, one sentence.
        is_error: true if there can be no value, so that an earlier one is not valid any more; false: there is none yet.
    """

    message: str
    is_error: bool = False


@dataclass(frozen=True)
class Metric(ABC, Generic[Spec]):
    """The metric of one gate."""

    gate: Gate
    spec: Spec

    @property
    @abstractmethod
    def bound(self) -> str:
        """The bound as text, such as "at least 99.9%"."""

    @property
    @abstractmethod
    def pending(self) -> str:
        """The message while an evaluation waits. It has no count, which would change with each request."""

    @abstractmethod
    def measure(self, measured: Measured, start: float, now: float) -> Measurement | NoMeasurement:
        """Return the value of the requests after `start`; times in seconds since the epoch."""


class CounterMetric(Metric[RequestSpec]):
    """A metric of Triton's counters, over the requests since the last evaluation."""

    counted = "requests"  # the requests that count as samples

    @property
    def pending(self) -> str:
        """The message while there are too few requests."""
        return f"Waits for {self.gate.samples} {self.counted}."

    def measure(self, measured: Measured, start: float, now: float) -> Measurement | NoMeasurement:
        """Return the value of the requests after `start`, if there are enough of them."""
        history = measured.history
        if now - history.read > max(STALE, self.gate.interval_seconds):
            why = history.error or "no pod has answered yet"
            is_error = history.read > 0 or bool(history.error)
            return NoMeasurement(f"The revision's counters cannot be read: {why}.", is_error)
        window = history.since(start)
        if self.count_samples(window) < self.gate.samples:
            return NoMeasurement(self.pending)
        return self.measure_window(window)

    def count_samples(self, window: Window) -> int:
        """Return the number of requests that count as samples."""
        return window.requests

    @abstractmethod
    def measure_window(self, window: Window) -> Measurement | NoMeasurement:
        """Return the value of a window with enough requests."""
