"""What was measured of revisions: how many requests, how they went, and what Prometheus answered. Values only.

Counters arrive as totals that never fall; a gate evaluates the difference between two moments.
Times are seconds since the epoch, latencies microseconds, as Triton counts them.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

# 15 minutes of points where totals move at every reading; hours where requests are rare.
MAX_POINTS: Final = 450
# Triton's quantiles slide over the last 60 s (prometheus-cpp's Summary; its flags cannot change it).
QUANTILE_SECONDS: Final = 60.0

Quantiles = tuple[tuple[int, float], ...]
"""Percentile and microseconds, such as ((50, 1200.0), (99, 8000.0))."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the pods of a revision did from when they were first read until `time`. Nothing of it ever falls."""

    time: float
    requests: int = 0
    failures: int = 0
    duration_us: float = 0.0  # of the requests that succeeded, queue included
    queue_us: float = 0.0
    quantiles: Quantiles = ()  # the slowest pod's, over the minute before `time`

    def counts(self) -> tuple[float, ...]:
        """All but the clock and what slides with it."""
        return self.requests, self.failures, self.duration_us, self.queue_us


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two readings."""

    start: float
    end: float
    requests: int
    failures: int
    duration_us: float
    queue_us: float
    quantiles: Quantiles

    @property
    def successes(self) -> int:
        """Requests that were answered without an error."""
        return self.requests - self.failures

    def latency_us(self, percentile: int | None) -> float | None:
        """A percentile of the latency, or its mean; None where nothing is known of it."""
        if percentile is not None:
            return dict(self.quantiles).get(percentile)
        return self.duration_us / self.successes if self.successes else None


@dataclass(frozen=True)
class History:
    """A revision's totals over time, oldest first, with a point wherever they changed."""

    points: tuple[Totals, ...] = ()
    read: float = 0.0  # when a pod of it was last read; 0: never
    trouble: str = ""  # why none could be read at the last try

    def grown(self, totals: Totals) -> "History":
        """The history with one more reading. Time never runs backwards in it, whatever the clock does."""
        totals = replace(totals, time=max(totals.time, self.read))
        if self.points and self.points[-1].counts() == totals.counts():
            return History(self.points, totals.time)
        return History((*self.points, totals)[-MAX_POINTS:], totals.time)

    def unread(self, trouble: str) -> "History":
        """The history after a try that brought nothing: no data, which is not the same as zero."""
        return replace(self, trouble=trouble)

    def since(self, moment: float) -> Window:
        """What happened after the last reading that is not later than `moment`; at most what is remembered."""
        if not self.points:
            return Window(moment, moment, 0, 0, 0.0, 0.0, ())
        index = max(bisect_right(self.points, moment, key=lambda point: point.time) - 1, 0)
        first, last = self.points[index], self.points[-1]
        # Totals stood still from a point to the next, so the window begins where it was asked to.
        start = max(first.time, moment)
        return Window(
            start=start,
            end=max(self.read, start),
            requests=last.requests - first.requests,
            failures=last.failures - first.failures,
            duration_us=last.duration_us - first.duration_us,
            queue_us=last.queue_us - first.queue_us,
            quantiles=_worst(self.points[index + 1 :], start),
        )


def _worst(points: tuple[Totals, ...], start: float) -> Quantiles:
    """The worst quantiles of a window: of the points whose minute lies wholly in it, else of the last point.

    A percentile of all requests is never above the largest of its parts' percentiles, parts being pods
    or minutes: so the largest is on the safe side, as far as Triton's own estimate goes (it leans to the
    low side where requests are few).
    """
    whole = [point.quantiles for point in points if point.time >= start + QUANTILE_SECONDS and point.quantiles]
    if not whole:
        whole = [point.quantiles for point in points[-1:]]
    return worst(whole)


def worst(many: list[Quantiles]) -> Quantiles:
    """The largest value of each percentile."""
    found: dict[int, float] = {}
    for quantiles in many:
        for percentile, value in quantiles:
            found[percentile] = max(value, found.get(percentile, 0.0))
    return tuple(sorted(found.items()))


@dataclass(frozen=True)
class PrometheusQuery:
    """A query to a Prometheus, filled in. It is asked again when its answer is `interval` seconds old."""

    server: str
    query: str
    timeout: float
    interval: float


@dataclass(frozen=True)
class Answer:
    """What a Prometheus said: a number, or in a sentence why there is none."""

    time: float  # when it came
    value: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Measured:
    """All that gates look at, of one revision."""

    history: History = field(default_factory=History)
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by the gate's name
