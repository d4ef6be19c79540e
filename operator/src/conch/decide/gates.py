"""What the gates say of a revision: each a pure check of what was measured, in the words that the user reads.

(The shape is cert-manager's policy chain.) A gate is judged at most every interval, on all that came after its
last judgement, and not before there is enough of it. What cannot be judged is Inconclusive, and never Passed.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from conch.api import duration_seconds
from conch.api.analysis import Gate, GateStatus, Verdict, named
from conch.api.numbers import percent
from conch.api.times import parse_time
from conch.observe.measured import Measured, PrometheusQuery, Window

# Counters this old, in seconds, say nothing of now: the pods cannot be read.
STALE: Final = 30.0
_PLACE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "'": r"\'", "\n": r"\n"})


@dataclass(frozen=True)
class Judgement:
    """What a gate says now, as the status keeps it; and when to ask it again."""

    status: GateStatus
    wait: float | None  # seconds; None: never, it has failed

    @property
    def verdict(self) -> Verdict:
        """Passed, Failed or Inconclusive; what an older status says otherwise is Inconclusive."""
        return Verdict(self.status.verdict) if self.status.verdict in set(Verdict) else Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class Reading:
    """One measurement beside its bound."""

    good: bool
    value: str
    sentence: str
    samples: int | None = None


@dataclass(frozen=True)
class Silence:
    """Why nothing can be judged. `loud`: what was said before holds no longer."""

    sentence: str
    loud: bool = False


def judge_all(
    gates: Iterable[Gate], measured: Measured, before: Iterable[GateStatus], now: float, since: float = 0.0
) -> tuple[Judgement, ...]:
    """Judge each gate of a rollout; see `judge`."""
    known = {status.name: status for status in before}
    return tuple(judge(gate, measured, known.get(gate.name or ""), now, since) for gate in named(gates))


def judge(gate: Gate, measured: Measured, before: GateStatus | None, now: float, since: float = 0.0) -> Judgement:
    """Say what a gate says of a revision.

    Args:
        gate: what is asked; with its name (see `named`) where several are.
        measured: of the revision; answers by the gates' names.
        before: what it said last, None at first.
        now: seconds since the epoch.
        since: what was measured before does not count, and neither does a verdict from before: a step's beginning.
    """
    known = before or GateStatus.of(gate)
    if known.verdict == Verdict.FAILED:
        return Judgement(known, None)
    judged = parse_time(known.judged) if known.judged else 0.0
    start = max(judged, since)
    left = judged + gate.interval_seconds - now
    reading = Silence(_waits(gate)) if left > 0 else _read(gate, measured, start, now)
    if isinstance(reading, Reading):
        return Judgement(_judged(gate, known, reading, now), gate.interval_seconds)
    wait = left if left > 0 else gate.interval_seconds
    if not reading.loud and known.value and judged >= since:  # what was said goes on being so
        return Judgement(known, wait)
    return Judgement(_silent(gate, known, reading), wait)


def build_queries(gates: Iterable[Gate], names: Mapping[str, str]) -> dict[str, PrometheusQuery]:
    """Return what is to be asked of Prometheus, by gate name.

    Args:
        gates: those of the rollout.
        names: what fills the query's {{service}}, {{namespace}}, {{revision}} and {{stable}}.
    """
    asked = ((gate.name or gate.kind, gate.prometheus, gate.interval_seconds) for gate in named(gates))
    return {
        name: PrometheusQuery(typed.server, filled(typed.query, names), duration_seconds(typed.timeout), interval)
        for name, typed, interval in asked
        if typed is not None
    }


def filled(query: str, names: Mapping[str, str]) -> str:
    r"""Return a query with the names filled in, escaped for the inside of a PromQL string.

    >>> filled('up{job="{{service}}"}', {"service": 'a"b'})
    'up{job="a\\"b"}'
    """

    def fill(found: re.Match[str]) -> str:
        value = names.get(found[1])
        return found[0] if value is None else value.translate(_ESCAPES)

    return _PLACE.sub(fill, query)


def bound_of(gate: Gate) -> str:
    """Return what a gate asks, in a few words."""
    if gate.success_rate is not None:
        return f"at least {gate.success_rate.min}"
    if gate.latency is not None:
        return f"at most {gate.latency.max}"
    if gate.parity is not None:
        return f"at least {gate.parity.min_agreement}"
    typed = gate.prometheus
    least = f"at least {typed.min}" if typed is not None and typed.min is not None else ""
    most = f"at most {typed.max}" if typed is not None and typed.max is not None else ""
    return " and ".join(part for part in (least, most) if part)


def _read(gate: Gate, measured: Measured, start: float, now: float) -> Reading | Silence:
    if not gate.counts_requests:
        return _prometheus(gate, measured, start)
    history = measured.history
    if now - history.read > max(STALE, gate.interval_seconds):
        why = history.trouble or "none of its pods has been asked yet"
        return Silence(
            f"The revision's counters cannot be read: {why}.", loud=history.read > 0 or bool(history.trouble)
        )
    window = history.since(start)
    for check in _CHECKS:
        found = check(gate, window)
        if found is not None:
            return found
    return Silence(_waits(gate))


def _enough(gate: Gate, window: Window) -> Silence | None:
    """There are as many requests as a judgement needs."""
    counted = window.successes if gate.latency is not None else window.requests
    return None if counted >= gate.samples else Silence(_waits(gate))


def _success_rate(gate: Gate, window: Window) -> Reading | None:
    """The share of requests without an error."""
    if gate.success_rate is None:
        return None
    rate = Fraction(window.successes, window.requests)
    value = percentage(rate)
    return Reading(
        good=rate >= percent(gate.success_rate.min),
        value=value,
        samples=window.requests,
        sentence=f"{value} of {window.requests} requests succeeded",
    )


def _latency(gate: Gate, window: Window) -> Reading | Silence | None:
    """A percentile of the latency, or its mean."""
    if gate.latency is None:
        return None
    typed = gate.latency
    what = f"The latency's percentile {typed.percentile}" if typed.percentile else "The mean latency"
    found = window.latency_us(typed.percentile)
    if found is None:
        return Silence(
            f"{what} is not told by the revision's pods, though they had {window.successes} requests: Triton tells"
            " none for a model with a response cache, and none without --metrics-config=summary_latencies=true,"
            " which Conch sets in new revisions; ask for the mean.",
            loud=True,
        )
    value = f"{_ceiled(found / 1000, 3)}ms"
    return Reading(
        good=found <= duration_seconds(typed.max) * 1e6 * (1 + 1e-9),  # 50.1ms is not exact in binary
        value=value,
        samples=window.successes,
        sentence=f"{what} of {window.successes} requests is {value}",
    )


_CHECKS: Final[tuple[Callable[[Gate, Window], Reading | Silence | None], ...]] = (_enough, _success_rate, _latency)


def _prometheus(gate: Gate, measured: Measured, start: float) -> Reading | Silence:
    """What the user's Prometheus answered after `start`."""
    typed, answer = gate.prometheus, measured.answers.get(gate.name or gate.kind)
    if typed is None or answer is None or answer.time <= start:
        return Silence(_waits(gate))
    if answer.value is None:
        return Silence(_sentence(answer.error), loud=True)
    low = -math.inf if typed.min is None else float(typed.min)
    high = math.inf if typed.max is None else float(typed.max)
    value = f"{answer.value:.6g}"
    return Reading(good=low <= answer.value <= high, value=value, sentence=f"The query answers {value}")


def _judged(gate: Gate, known: GateStatus, reading: Reading, now: float) -> GateStatus:
    """The status after a judgement. A failure that is tolerated is no pass: the next judgement tells."""
    failures = known.failures + (not reading.good)
    verdict = Verdict.PASSED
    told = f"{reading.sentence}; {bound_of(gate)} is asked."
    if not reading.good:
        verdict = Verdict.FAILED if failures > gate.failure_limit else Verdict.INCONCLUSIVE
        told = f"{told} It is failure {failures}, {_tolerated(gate.failure_limit)}."
    return known.model_copy(
        update={
            "verdict": verdict.value,
            "value": reading.value,
            "bound": bound_of(gate),
            "samples": reading.samples,
            "failures": failures,
            "judged": moment(now),
            "message": told,
        }
    )


def _silent(gate: Gate, known: GateStatus, silence: Silence) -> GateStatus:
    """The status of a gate that says nothing now. Its failures and its clock go on."""
    return known.model_copy(
        update={
            "verdict": Verdict.INCONCLUSIVE.value,
            "value": "",
            "bound": bound_of(gate),
            "samples": None,
            "message": silence.sentence,
        }
    )


def _waits(gate: Gate) -> str:
    """What is awaited; without a count, which would change with every request."""
    if gate.counts_requests:
        what = "requests that succeed" if gate.latency is not None else "requests"
        return f"Waits for {gate.samples} {what}."
    return "Waits for Prometheus' answer."


def _tolerated(limit: int) -> str:
    return "and none is tolerated" if limit == 0 else f"and {limit} {'is' if limit == 1 else 'are'} tolerated"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def percentage(rate: Fraction) -> str:
    """A share in percent, rounded down: what is below a bound never looks equal to it."""
    return f"{math.floor(rate * 1_000_000) / 10_000:.4f}".rstrip("0").rstrip(".") + "%"


def _ceiled(value: float, digits: int) -> str:
    """A number rounded up, for the same reason."""
    return f"{math.ceil(round(value * 10**digits, 3)) / 10**digits:.{digits}f}".rstrip("0").rstrip(".")


def moment(now: float) -> str:
    """RFC 3339 in milliseconds, rounded up: the next window begins after all that this judgement saw."""
    return datetime.fromtimestamp(math.ceil(now * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
