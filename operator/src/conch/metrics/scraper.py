"""Scraper of pods, which keeps their readings of the last minute for the next comparison."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from prometheus_client import Counter

from conch.metrics.pods import ServingPod
from conch.metrics.window import Rates, Reading, append_reading, calculate_rates
from conch.signals.limiter import FairLimiter
from conch.signals.page import PageError, read_page
from conch.triton.metrics import read_load
from conch_contract import names

# Seconds for which a reading is current: an autoscaler requests its metrics one after the other.
_SAME_READING_SECONDS: Final = 1.0
_SECONDS: Final = 2.0  # for a page; Triton answers from memory, and the autoscaler waits
_CONCURRENCY: Final = 256  # pods that are read at a time

_scrapes = Counter("conch_metrics_scrapes", "Readings of serving pods, by result.", ["result"])
_log = structlog.get_logger("conch.metrics")


class Scraper:
    """Scrapes pods over the pod network. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], window: float, port: int = names.METRICS_PORT) -> None:
        self._clock = clock
        self._window = window
        self._port = port
        self._readings: dict[str, tuple[Reading, ...]] = {}
        self._reading: dict[str, asyncio.Task[Reading | None]] = {}
        self._limiter = FairLimiter(_CONCURRENCY)

    async def scrape(self, pods: Sequence[ServingPod]) -> Mapping[str, Rates]:
        """Scrape pods, and return their rates by uid. Pods that do not answer are absent."""
        ready = [pod for pod in pods if pod.ready]
        answers = await asyncio.gather(*(self._current(pod) for pod in ready))
        found = {}
        for pod, reading in zip(ready, answers, strict=True):
            rate = calculate_rates(self._readings.get(pod.uid, ()), self._window) if reading else None
            if rate is not None:
                found[pod.uid] = rate
        return found

    def forget(self, uids: Collection[str]) -> None:
        """Remove the readings of all pods but these."""
        for uid in [uid for uid in self._readings if uid not in uids]:
            del self._readings[uid]

    async def _current(self, pod: ServingPod) -> Reading | None:
        """Return a current reading: the one in progress, the last one if it is new enough, or a new one."""
        known = self._readings.get(pod.uid, ())
        if known and self._clock() - known[-1].time < _SAME_READING_SECONDS:
            return known[-1]
        task = self._reading.get(pod.uid)
        if task is None:
            task = self._reading[pod.uid] = asyncio.create_task(self._read(pod))
        return await asyncio.shield(task)  # others may wait for it too

    async def _read(self, pod: ServingPod) -> Reading | None:
        try:
            async with self._limiter.turn(pod.namespace):
                text = await read_page(pod.ip, self._port, seconds=_SECONDS)
            reading = Reading(self._clock(), read_load(text, pod.model))
        except (PageError, ValueError, LookupError) as error:
            _scrapes.labels("failed").inc()
            _log.warning("pod not read", namespace=pod.namespace, pod=pod.name, error=str(error))
            return None
        finally:
            self._reading.pop(pod.uid, None)
        _scrapes.labels("read").inc()
        self._readings[pod.uid] = append_reading(self._readings.get(pod.uid, ()), reading)
        return reading
