"""What a gate measures: a subclass of `Metric`, in a file of its own, for each metric of the spec."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from conch.api.analysis import Gate
from conch.api.gate_metric import GateMetric
from conch.observe.measured import Measured, Window

# Counters this old, in seconds, are not those of now: the pods cannot be read.
STALE: Final = 30.0
Spec = TypeVar("Spec", bound=GateMetric)


@dataclass(frozen=True)
class Measurement:
    """A value beside its bound.

    Attributes:
        passed: whether the value is within the bound.
        value: the value with its unit, as the status shows it.
        message: the value beside its bound: "Success rate 99.5% over 200 requests is below the minimum of 99.9%".
        samples: the requests that it is of; None: it counts no requests.
    """

    passed: bool
    value: str
    message: str
    samples: int | None = None


@dataclass(frozen=True)
class NoMeasurement:
    """Why there is no value.

    Attributes:
        message: one sentence.
        is_error: a value cannot be had, so that an earlier one holds no longer; otherwise there is none yet.
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
        """The bound, in a few words: "at least 99.9%"."""

    @property
    @abstractmethod
    def pending(self) -> str:
        """What an evaluation waits for, in a sentence without a count that changes with each request."""

    @abstractmethod
    def measure(self, measured: Measured, start: float, now: float) -> Measurement | NoMeasurement:
        """Return the value of what came after `start`; times in seconds since the epoch."""


class CounterMetric(Metric[Spec]):
    """A metric of Triton's counters, over the requests since the last evaluation."""

    counted = "requests"  # which requests count as samples

    @property
    def pending(self) -> str:
        """The requests that are missing."""
        return f"Waits for {self.gate.samples} {self.counted}."

    def measure(self, measured: Measured, start: float, now: float) -> Measurement | NoMeasurement:
        """Return the value, once there are enough requests."""
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
        """Return how many requests count."""
        return window.requests

    @abstractmethod
    def measure_window(self, window: Window) -> Measurement | NoMeasurement:
        """Return the value of a window with enough requests."""
