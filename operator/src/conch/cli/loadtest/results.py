"""Results of a load test: counts and latencies. Pure.

Latency counts from the time at which a request was due, whenever it was started: see `schedule`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Verdict = Literal["answered", "failed", "late"]
_SHARES: Final = (50, 90, 99)
_MOST_REASONS: Final = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one request. Times are seconds since the beginning of the run; a late request was never sent."""

    due: float
    ended: float
    delay: float = 0.0  # seconds of delay by this client itself
    verdict: Verdict = "answered"
    reason: str = ""  # why it was not answered

    @property
    def latency(self) -> float:
        """Seconds from the time when it was due to its end."""
        return self.ended - self.due


@dataclass(frozen=True)
class ReplicaSample:
    """Replicas at a time, in seconds since the beginning of the run."""

    time: float
    ready: int
    desired: int


@dataclass(frozen=True)
class Second:
    """One second of the run: the requests that were due, those that ended, and the last sample of the replicas."""

    second: int
    scheduled: int
    answered: int
    failed: int
    late: int
    p50: float | None  # milliseconds, of those answered; None: none were
    p99: float | None
    ready: int | None
    desired: int | None


def compute_percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` percent of the values do not exceed (nearest rank); None of nothing.

    >>> [compute_percentile([4, 1, 3, 2], share) for share in (1, 50, 51, 99)], compute_percentile([], 50)
    ([1, 2, 3, 4], None)
    """
    if not values:
        return None
    return sorted(values)[max(1, math.ceil(len(values) * share / 100)) - 1]


def build_second(second: int, scheduled: int, ended: Sequence[Outcome], sample: ReplicaSample | None) -> Second:
    """Return the figures of one second."""
    count = Counter(outcome.verdict for outcome in ended)
    latencies = _list_latencies(ended)
    return Second(
        second=second,
        scheduled=scheduled,
        answered=count["answered"],
        failed=count["failed"],
        late=count["late"],
        p50=_round(compute_percentile(latencies, 50)),
        p99=_round(compute_percentile(latencies, 99)),
        ready=sample.ready if sample else None,
        desired=sample.desired if sample else None,
    )


def build_series(outcomes: Iterable[Outcome], samples: Iterable[ReplicaSample]) -> list[Second]:
    """Return all seconds up to the last one in which a request was due or ended."""
    due: Counter[int] = Counter()
    ended: defaultdict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        due[int(outcome.due)] += 1
        ended[int(outcome.ended)].append(outcome)
    replicas = {int(sample.time): sample for sample in samples}
    rows, last = [], None
    for second in range(max((*due, *ended), default=-1) + 1):
        last = replicas.get(second, last)
        rows.append(build_second(second, due[second], ended[second], last))
    return rows


def build_summary(outcomes: Sequence[Outcome], samples: Sequence[ReplicaSample], seconds: float) -> dict[str, Any]:
    """Return the figures of the run and of each second. The run took `seconds`, or until its last answer."""
    count = Counter(outcome.verdict for outcome in outcomes)
    latencies = _list_latencies(outcomes)
    delays = [outcome.delay * 1000 for outcome in outcomes]
    lasted = max(seconds, *(outcome.ended for outcome in outcomes), 1e-9)
    return {
        "scheduled": len(outcomes),
        "answered": count["answered"],
        "failed": count["failed"],
        "late": count["late"],
        "seconds": round(lasted, 3),
        "answeredPerSecond": round(count["answered"] / lasted, 2),
        "latencyMilliseconds": _compute_percentiles(latencies),
        "clientDelayMilliseconds": _compute_percentiles(delays),
        "failures": _count_reasons(outcomes, "failed"),
        "lateReasons": _count_reasons(outcomes, "late"),
        "replicas": _summarize_replicas(samples),
        "series": [asdict(second) for second in build_series(outcomes, samples)],
    }


def _list_latencies(outcomes: Iterable[Outcome]) -> list[float]:
    return [outcome.latency * 1000 for outcome in outcomes if outcome.verdict == "answered"]


def _compute_percentiles(values: Sequence[float]) -> dict[str, float | None]:
    found = {f"p{share}": _round(compute_percentile(values, share)) for share in _SHARES}
    return {**found, "max": _round(max(values, default=None))}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _count_reasons(outcomes: Iterable[Outcome], verdict: Verdict) -> list[dict[str, Any]]:
    """Return the most frequent reasons, with the times of their first and last request."""
    times_by_reason: defaultdict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.verdict == verdict:
            times_by_reason[outcome.reason].append(outcome.ended)
    most = sorted(times_by_reason.items(), key=lambda item: -len(item[1]))[:_MOST_REASONS]
    return [
        {"message": reason, "count": len(times), "first": round(min(times), 3), "last": round(max(times), 3)}
        for reason, times in most
    ]


def _summarize_replicas(samples: Sequence[ReplicaSample]) -> dict[str, dict[str, int]] | None:
    if not samples:
        return None
    ready, desired = [sample.ready for sample in samples], [sample.desired for sample in samples]
    return {
        name: {"first": values[0], "most": max(values), "last": values[-1]}
        for name, values in (("ready", ready), ("desired", desired))
    }
