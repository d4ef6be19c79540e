"""From readings of counters to what an autoscaler is told. Pure; the clock is that of the readings.

Rates are taken between two readings of one pod. What cannot be told is left out: an autoscaler treats a pod without a
number with caution (it counts as idle when more pods are asked for, and as busy when fewer are), and a zero that is
no zero as the truth. https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from conch.api.metrics import TritonMetric
from conch.triton.metrics import COMPUTE_US, DURATION_US, FAILURE, QUEUE_US, SUCCESS, Load, growth

WINDOW: Final = 15.0  # seconds; the period at which autoscalers ask, unless the cluster says otherwise
KEPT: Final = 60.0  # seconds after which a reading is too old to compare with
# Who asks every 15 seconds does so after 14.9 too, and shall not be told of 30 seconds then.
_SLACK: Final = 0.8
_MICRO: Final = 1e-6


@dataclass(frozen=True)
class Reading:
    """What a pod told at one moment."""

    time: float  # seconds, of a clock that never jumps
    load: Load


@dataclass(frozen=True)
class Rates:
    """What a pod did between two readings, or several pods together. All but gauges are a second."""

    seconds: float  # between the readings; of several pods the longest
    requests: float  # that were answered, failed ones included
    successes: float
    latency: float  # seconds that successful requests took
    queue: float  # seconds that requests waited
    compute: float  # seconds that were computed
    pending: float  # requests in queues, on average over the readings
    idle: bool  # no request waits at this moment
    gpus: tuple[float, ...]

    @classmethod
    def together(cls, several: Iterable["Rates"]) -> Self | None:
        """Return what several pods did; None where nobody told anything."""
        rates = list(several)
        if not rates:
            return None
        return cls(
            seconds=max(each.seconds for each in rates),
            requests=sum(each.requests for each in rates),
            successes=sum(each.successes for each in rates),
            latency=sum(each.latency for each in rates),
            queue=sum(each.queue for each in rates),
            compute=sum(each.compute for each in rates),
            pending=sum(each.pending for each in rates),
            idle=all(each.idle for each in rates),
            gpus=tuple(gpu for each in rates for gpu in each.gpus),
        )


def rates(readings: Sequence[Reading], window: float = WINDOW) -> Rates | None:
    """Return what a pod did in the last seconds; None if there is but one reading.

    Args:
        readings: oldest first.
        window: seconds; where no reading is as old as that, the oldest one begins the window.
    """
    if len(readings) < 2:
        return None
    last = readings[-1]
    before = [reading for reading in readings[:-1] if last.time - reading.time >= window * _SLACK]
    first = before[-1] if before else readings[0]
    seconds = last.time - first.time
    if seconds <= 0:
        return None
    recent = [reading.load for reading in readings if reading.time > first.time]
    grown = growth(first.load.counters, last.load.counters)
    successes = grown.get(SUCCESS, 0.0)
    return Rates(
        seconds=seconds,
        requests=(successes + grown.get(FAILURE, 0.0)) / seconds,
        successes=successes / seconds,
        latency=grown.get(DURATION_US, 0.0) * _MICRO / seconds,
        queue=grown.get(QUEUE_US, 0.0) * _MICRO / seconds,
        compute=sum(grown.get(metric, 0.0) for metric in COMPUTE_US) * _MICRO / seconds,
        pending=_mean([load.pending for load in recent]),
        idle=last.load.pending == 0,
        gpus=(_mean([gpu for load in recent for gpu in load.gpus]),) if last.load.gpus else (),
    )


def told(done: Rates) -> Mapping[TritonMetric, float]:
    """Return what can be told of a pod, or of several.

    A quotient of nothing by nothing is 0 where nobody waits, and unknown where requests wait and none was answered: a
    model that takes longer than the window.
    """
    found = {
        TritonMetric.REQUESTS_PER_SECOND: done.requests,
        TritonMetric.PENDING_REQUESTS: done.pending,
    }
    if done.compute or done.idle:
        found[TritonMetric.QUEUE_TO_COMPUTE_RATIO] = _quotient(done.queue, done.compute)
    if done.successes or done.idle:
        found[TritonMetric.INFERENCE_LATENCY] = _quotient(done.latency, done.successes)
    if done.gpus:
        found[TritonMetric.GPU_UTILIZATION] = _mean(done.gpus)
    return found


def fresh(readings: Sequence[Reading], reading: Reading) -> tuple[Reading, ...]:
    """Return the readings with a new one, and without those that are too old to compare it with."""
    return (*(each for each in readings if reading.time - each.time <= KEPT), reading)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
