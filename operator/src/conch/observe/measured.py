"""Measurements of revisions: requests, failures, latencies, and results of Prometheus queries. Values only.

Counters are totals that never decrease. A gate evaluates the difference between two times.
Times are seconds since the epoch, and latencies microseconds, as in Triton's counters.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

# 15 minutes of points if totals change at each reading; hours if requests are rare.
MAX_POINTS: Final = 450
# Triton's quantiles slide over the last 60 s (prometheus-cpp's Summary; its flags cannot change it).
QUANTILE_SECONDS: Final = 60.0

Quantiles = tuple[tuple[int, float], ...]
"""Percentile and microseconds, such as ((50, 1200.0), (99, 8000.0))."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of the pods of a revision, from their first reading until `time`. They never decrease."""

    time: float
    requests: int = 0
    failures: int = 0
    duration_us: float = 0.0  # of the successful requests, queue time included
    queue_us: float = 0.0
    quantiles: Quantiles = ()  # of the slowest pod, over the minute before `time`
    parts: tuple[tuple[str, float], ...] = ()  # microseconds of requests to other models of the pods, by name

    def counts(self) -> tuple[float, ...]:
        """Return the counters without the time and the quantiles, which change without requests."""
        return self.requests, self.failures, self.duration_us, self.queue_us


@dataclass(frozen=True, slots=True)
class Window:
    """The requests between two readings."""

    start: float
    end: float
    requests: int
    failures: int
    duration_us: float
    queue_us: float
    quantiles: Quantiles
    parts: tuple[tuple[str, float], ...] = ()

    @property
    def successes(self) -> int:
        """Number of requests without an error."""
        return self.requests - self.failures

    def latency_us(self, percentile: int | None) -> float | None:
        """Return a percentile of the latency, or its mean, in microseconds; None: there is no measurement."""
        if percentile is not None:
            return dict(self.quantiles).get(percentile)
        return self.duration_us / self.successes if self.successes else None

    def find_slowest_part(self) -> tuple[str, float] | None:
        """Return the other model whose requests took longest, and for how many microseconds a request; None: none."""
        name, duration_us = max(self.parts, key=lambda part: part[1], default=("", 0.0))
        return (name, duration_us / self.successes) if duration_us and self.successes else None


@dataclass(frozen=True)
class History:
    """Totals of a revision over time, oldest first, with a point for each change."""

    points: tuple[Totals, ...] = ()
    read: float = 0.0  # time of the last reading of a pod; 0: never
    error: str = ""  # of the last reading; empty: it succeeded

    def with_totals(self, totals: Totals) -> "History":
        """Return the history with one more reading. Its times never decrease, also if the clock is set back."""
        totals = replace(totals, time=max(totals.time, self.read))
        if self.points and self.points[-1].counts() == totals.counts():
            return History(self.points, totals.time)
        return History((*self.points, totals)[-MAX_POINTS:], totals.time)

    def with_error(self, error: str) -> "History":
        """Return the history after a reading that failed: without new data, which differs from zero requests."""
        return replace(self, error=error)

    def since(self, moment: float) -> Window:
        """Return the requests after the last reading that is not later than `moment`, in seconds since the epoch."""
        if not self.points:
            return Window(moment, moment, 0, 0, 0.0, 0.0, ())
        index = max(bisect_right(self.points, moment, key=lambda point: point.time) - 1, 0)
        first, last = self.points[index], self.points[-1]
        # Totals do not change between two points, so the window begins at `moment`.
        start = max(first.time, moment)
        return Window(
            start=start,
            end=max(self.read, start),
            requests=last.requests - first.requests,
            failures=last.failures - first.failures,
            duration_us=last.duration_us - first.duration_us,
            queue_us=last.queue_us - first.queue_us,
            quantiles=_window_quantiles(self.points[index + 1 :], start),
            parts=_subtract(last.parts, first.parts),
        )


def _subtract(
    last: tuple[tuple[str, float], ...], first: tuple[tuple[str, float], ...]
) -> tuple[tuple[str, float], ...]:
    before = dict(first)
    return tuple((name, value - before.get(name, 0.0)) for name, value in last)


def _window_quantiles(points: tuple[Totals, ...], start: float) -> Quantiles:
    """Return the largest quantiles of a window: of the points whose minute is inside it, else of the last point.

    A percentile of all requests is never above the largest one of pods or minutes, so the largest is an upper bound, as
    far as Triton's estimate is right (it is low for few requests).
    """
    whole = [point.quantiles for point in points if point.time >= start + QUANTILE_SECONDS and point.quantiles]
    if not whole:
        whole = [point.quantiles for point in points[-1:]]
    return max_quantiles(whole)


def max_quantiles(many: list[Quantiles]) -> Quantiles:
    """Return the largest value of each percentile."""
    found: dict[int, float] = {}
    for quantiles in many:
        for percentile, value in quantiles:
            found[percentile] = max(value, found.get(percentile, 0.0))
    return tuple(sorted(found.items()))


@dataclass(frozen=True)
class PrometheusQuery:
    """A query to a Prometheus server, without placeholders. It is repeated every `interval` seconds."""

    server: str
    query: str
    timeout: float
    interval: float


@dataclass(frozen=True)
class Answer:
    """The result of a Prometheus query: a number, or an error message."""

    time: float  # of the result
    value: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Measured:
    """All measurements of a revision that gates evaluate."""

    history: History = field(default_factory=History)
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by the gate's name
