"""The share of requests that Triton answered without an error."""

from fractions import Fraction

from conch.api.analysis import SuccessRate
from conch.api.numbers import percent
from conch.decide.gates.metric import CounterMetric, Measurement
from conch.decide.gates.numbers import compare_min, format_share
from conch.observe.measured import Window


class SuccessRateMetric(CounterMetric[SuccessRate]):
    """Passes at or above a minimum."""

    @property
    def bound(self) -> str:
        """The minimum."""
        return f"at least {self.spec.min}"

    def measure_window(self, window: Window) -> Measurement:
        """Return the success rate of a window."""
        share = Fraction(window.successes, window.requests)
        value, passed = format_share(share), share >= percent(self.spec.min)
        return Measurement(
            passed=passed,
            value=value,
            message=f"Success rate {value} over {window.requests} requests {compare_min(self.spec.min, passed=passed)}",
            samples=window.requests,
        )
