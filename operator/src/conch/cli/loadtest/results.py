"""What became of the requests, counted and measured. Pure.

Latency runs from the moment a request was due, whenever it was started: see `schedule`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Verdict = Literal["answered", "failed", "late"]
_SHARES: Final = (50, 90, 99)
_MOST_WORDS: Final = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. Moments are in seconds from the beginning of the run; a late one was never started."""

    due: float
    ended: float
    behind: float = 0.0  # seconds by which this client itself was late, by no slowness of the service
    verdict: Verdict = "answered"
    words: str = ""  # why not answered

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its end."""
        return self.ended - self.due


@dataclass(frozen=True)
class Seen:
    """The replicas at a moment, in seconds from the beginning of the run."""

    at: float
    ready: int
    desired: int


@dataclass(frozen=True)
class Second:
    """One second of the run: what was due in it, what ended in it, and the replicas that were last seen."""

    second: int
    asked: int
    answered: int
    failed: int
    late: int
    p50: float | None  # milliseconds, of those answered; None: none were
    p99: float | None
    ready: int | None
    desired: int | None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` percent of the values do not exceed (nearest rank); None of nothing.

    >>> [percentile([4, 1, 3, 2], share) for share in (1, 50, 51, 99)], percentile([], 50)
    ([1, 2, 3, 4], None)
    """
    if not values:
        return None
    return sorted(values)[max(1, math.ceil(len(values) * share / 100)) - 1]


def row(second: int, asked: int, ended: Sequence[Outcome], seen: Seen | None) -> Second:
    """Return one second's figures."""
    count = Counter(outcome.verdict for outcome in ended)
    latencies = _milliseconds(ended)
    return Second(
        second=second,
        asked=asked,
        answered=count["answered"],
        failed=count["failed"],
        late=count["late"],
        p50=_rounded(percentile(latencies, 50)),
        p99=_rounded(percentile(latencies, 99)),
        ready=seen.ready if seen else None,
        desired=seen.desired if seen else None,
    )


def series(outcomes: Iterable[Outcome], seen: Iterable[Seen]) -> list[Second]:
    """Return each second from the first to the last in which something was due or ended."""
    due: Counter[int] = Counter()
    ended: defaultdict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        due[int(outcome.due)] += 1
        ended[int(outcome.ended)].append(outcome)
    replicas = {int(look.at): look for look in seen}
    rows, last = [], None
    for second in range(max((*due, *ended), default=-1) + 1):
        last = replicas.get(second, last)
        rows.append(row(second, due[second], ended[second], last))
    return rows


def summary(outcomes: Sequence[Outcome], seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """Return the figures of the whole run, of `seconds` or as long as its answers took, and each second's."""
    count = Counter(outcome.verdict for outcome in outcomes)
    latencies = _milliseconds(outcomes)
    behind = [outcome.behind * 1000 for outcome in outcomes]
    lasted = max(seconds, *(outcome.ended for outcome in outcomes), 1e-9)
    return {
        "asked": len(outcomes),
        "answered": count["answered"],
        "failed": count["failed"],
        "late": count["late"],
        "seconds": round(lasted, 3),
        "answeredPerSecond": round(count["answered"] / lasted, 2),
        "latencyMilliseconds": _spread(latencies),
        "clientBehindMilliseconds": _spread(behind),
        "failures": _words(outcomes, "failed"),
        "lateBecause": _words(outcomes, "late"),
        "replicas": _replicas(seen),
        "series": [asdict(second) for second in series(outcomes, seen)],
    }


def _milliseconds(outcomes: Iterable[Outcome]) -> list[float]:
    return [outcome.latency * 1000 for outcome in outcomes if outcome.verdict == "answered"]


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    found = {f"p{share}": _rounded(percentile(values, share)) for share in _SHARES}
    return {**found, "max": _rounded(max(values, default=None))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _words(outcomes: Iterable[Outcome], verdict: Verdict) -> list[dict[str, Any]]:
    """Return the most frequent reasons, with the seconds in which they were first and last seen."""
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.verdict == verdict:
            moments[outcome.words].append(outcome.ended)
    most = sorted(moments.items(), key=lambda item: -len(item[1]))[:_MOST_WORDS]
    return [
        {"message": words, "count": len(at), "first": round(min(at), 3), "last": round(max(at), 3)}
        for words, at in most
    ]


def _replicas(seen: Sequence[Seen]) -> dict[str, dict[str, int]] | None:
    if not seen:
        return None
    ready, desired = [look.ready for look in seen], [look.desired for look in seen]
    return {
        name: {"first": values[0], "most": max(values), "last": values[-1]}
        for name, values in (("ready", ready), ("desired", desired))
    }
