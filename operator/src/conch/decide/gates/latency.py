"""The latency of requests in Triton: a percentile, or the mean."""

from conch.api import duration_seconds
from conch.api.analysis import Latency
from conch.decide.gates.metric import CounterMetric, Measurement, NoMeasurement
from conch.decide.gates.numbers import compare_max, round_up
from conch.observe.measured import Window


class LatencyMetric(CounterMetric[Latency]):
    """Passes at or below a duration. Failed requests do not count."""

    counted = "requests that succeed"

    @property
    def bound(self) -> str:
        """The maximum."""
        return f"at most {self.spec.max}"

    def count_samples(self, window: Window) -> int:
        """Return the requests that have a latency."""
        return window.successes

    def measure_window(self, window: Window) -> Measurement | NoMeasurement:
        """Return the latency."""
        statistic = f"Latency p{self.spec.percentile}" if self.spec.percentile else "Mean latency"
        latency_us = window.latency_us(self.spec.percentile)
        if latency_us is None:
            return NoMeasurement(
                f"{statistic} is missing in the metrics of the revision's pods, after {window.successes} requests:"
                " Triton has none for a model with a response cache, and none without"
                " --metrics-config=summary_latencies=true, which Conch sets in new revisions. Set a gate for the mean.",
                is_error=True,
            )
        value = f"{round_up(latency_us / 1000, 3)}ms"
        passed = latency_us <= duration_seconds(self.spec.max) * 1e6 * (1 + 1e-9)  # 50.1ms is not exact in binary
        message = f"{statistic} {value} over {window.successes} requests {compare_max(self.spec.max, passed=passed)}"
        return Measurement(
            passed=passed,
            value=value,
            message=message if passed else f"{message}{_describe_slowest_part(window)}",
            samples=window.successes,
        )


def _describe_slowest_part(window: Window) -> str:
    """Return the end of a message that names the part with the longest requests; empty: the model has no parts."""
    slowest = window.find_slowest_part()
    if slowest is None:
        return ""
    name, duration_us = slowest
    return f"; of the other models in its pods, '{name}' takes longest, {round_up(duration_us / 1000, 3)}ms a request"
