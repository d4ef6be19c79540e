"""Reads pods when somebody asks about them, and remembers what to compare the next reading with."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import aiohttp
import structlog
from prometheus_client import Counter

from conch.metrics.pods import ServingPod
from conch.metrics.window import Rates, Reading, fresh, rates
from conch.signals.limiter import FairLimiter
from conch.signals.page import PageError, read_page
from conch.triton.metrics import read_load
from conch_contract import names

# An autoscaler asks for its metrics one after the other: they are all of one reading.
SAME: Final = 1.0  # seconds
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)  # seconds; Triton answers from memory, and somebody waits
_AT_ONCE: Final = 256  # pods being read

_scrapes = Counter("conch_metrics_scrapes", "Readings of serving pods, by result.", ["result"])
_log = structlog.get_logger("conch.metrics")


class Scraper:
    """Reads pods over the pod network. `clock` tells seconds and never jumps."""

    def __init__(self, clock: Callable[[], float], window: float, port: int = names.METRICS_PORT) -> None:
        self._clock = clock
        self._window = window
        self._port = port
        # Connections stay open between an autoscaler's questions, or each of them costs a handshake a pod.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False, connector=connector)
        self._readings: dict[str, tuple[Reading, ...]] = {}
        self._reading: dict[str, asyncio.Task[Reading | None]] = {}
        self._limiter = FairLimiter(_AT_ONCE)

    async def close(self) -> None:
        """Drop the connections."""
        await self._session.close()

    async def look(self, pods: Sequence[ServingPod]) -> Mapping[str, Rates]:
        """Read pods now, and return by uid what they did of late. A pod that does not answer is left out."""
        asked = [pod for pod in pods if pod.ready]
        answers = await asyncio.gather(*(self._current(pod) for pod in asked))
        found = {}
        for pod, reading in zip(asked, answers, strict=True):
            done = rates(self._readings.get(pod.uid, ()), self._window) if reading else None
            if done is not None:
                found[pod.uid] = done
        return found

    def forget(self, alive: Collection[str]) -> None:
        """Forget all pods but these."""
        for uid in [uid for uid in self._readings if uid not in alive]:
            del self._readings[uid]

    async def _current(self, pod: ServingPod) -> Reading | None:
        """Return a reading of this moment: one that is under way, the last one if it is that new, or a new one."""
        known = self._readings.get(pod.uid, ())
        if known and self._clock() - known[-1].time < SAME:
            return known[-1]
        task = self._reading.get(pod.uid)
        if task is None:
            task = self._reading[pod.uid] = asyncio.create_task(self._read(pod))
        return await asyncio.shield(task)  # others may wait for it too

    async def _read(self, pod: ServingPod) -> Reading | None:
        try:
            async with self._limiter.turn(pod.namespace):
                text = await read_page(self._session, pod.ip, self._port)
            reading = Reading(self._clock(), read_load(text, pod.model))
        except (PageError, ValueError, LookupError) as error:
            _scrapes.labels("failed").inc()
            _log.warning("a pod tells nothing", namespace=pod.namespace, pod=pod.name, error=str(error))
            return None
        finally:
            self._reading.pop(pod.uid, None)
        _scrapes.labels("read").inc()
        self._readings[pod.uid] = fresh(self._readings.get(pod.uid, ()), reading)
        return reading
