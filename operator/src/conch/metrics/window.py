"""Metrics for autoscalers, calculated from readings of counters. Pure; the clock is that of the readings.

A rate is of two readings of one pod. An unknown value is left out: an autoscaler treats a pod without a value with
caution (as idle before it scales up, as busy before it scales down), but takes a false zero as true.
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from conch.api.metrics import TritonMetric
from conch.triton.metrics import COMPUTE_US, DURATION_US, FAILURE, QUEUE_US, SUCCESS, Load, compute_growth

WINDOW: Final = 15.0  # seconds; the sync period of autoscalers, unless the cluster sets another one
READING_SECONDS: Final = 60.0  # seconds after which a reading is too old to compare with
# An autoscaler with a period of 15 s also sends a request after 14.9 s; its window is not 30 s then.
_SLACK: Final = 0.8
_MICRO: Final = 1e-6


@dataclass(frozen=True)
class Reading:
    """The counters and gauges of a pod at one time."""

    time: float  # seconds, of a monotonic clock
    load: Load


@dataclass(frozen=True)
class Rates:
    """Rates of one pod between two readings, or sums over several pods. All but gauges are per second."""

    seconds: float  # between the readings; of several pods the longest
    requests: float  # answered, failed ones included
    successes: float
    latency: float  # seconds that successful requests took
    queue: float  # seconds that requests waited
    compute: float  # seconds of computation
    pending: float  # requests in queues, on average over the readings
    idle: bool  # no request is in a queue now
    gpus: tuple[float, ...]

    @classmethod
    def combine(cls, several: Iterable["Rates"]) -> Self | None:
        """Return the rates of several pods together; None without any."""
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


def calculate_rates(readings: Sequence[Reading], window: float = WINDOW) -> Rates | None:
    """Return the rates of a pod over the window; None without two readings.

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
    grown = compute_growth(first.load.counters, last.load.counters)
    successes = grown.get(SUCCESS, 0.0)
    return Rates(
        seconds=seconds,
        requests=(successes + grown.get(FAILURE, 0.0)) / seconds,
        successes=successes / seconds,
        latency=grown.get(DURATION_US, 0.0) * _MICRO / seconds,
        queue=grown.get(QUEUE_US, 0.0) * _MICRO / seconds,
        compute=sum(grown.get(metric, 0.0) for metric in COMPUTE_US) * _MICRO / seconds,
        pending=_average([load.pending for load in recent]),
        idle=last.load.pending == 0,
        gpus=(_average([gpu for load in recent for gpu in load.gpus]),) if last.load.gpus else (),
    )


def calculate_metrics(rates: Rates) -> Mapping[TritonMetric, float]:
    """Return the known metrics of a pod, or of several.

    A quotient of 0 by 0 is 0 where no request waits. Where requests wait and none was answered, as with a model that
    takes longer than the window, it is unknown.
    """
    found = {
        TritonMetric.REQUESTS_PER_SECOND: rates.requests,
        TritonMetric.PENDING_REQUESTS: rates.pending,
    }
    if rates.compute or rates.idle:
        found[TritonMetric.QUEUE_TO_COMPUTE_RATIO] = _divide(rates.queue, rates.compute)
    if rates.successes or rates.idle:
        found[TritonMetric.INFERENCE_LATENCY] = _divide(rates.latency, rates.successes)
    if rates.gpus:
        found[TritonMetric.GPU_UTILIZATION] = _average(rates.gpus)
    return found


def append_reading(readings: Sequence[Reading], reading: Reading) -> tuple[Reading, ...]:
    """Return the readings with a new one, without those that are too old for a comparison."""
    return (*(each for each in readings if reading.time - each.time <= READING_SECONDS), reading)


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
