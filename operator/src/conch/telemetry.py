"""What the operator tells of itself: /healthz and /readyz for the kubelet, /metrics for Prometheus."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from conch.listening import Listener
from conch.observe import Store


class Health:
    """What the probes look at. Ready: this process does its work, or stands by to do it."""

    def __init__(self, told: str = "starting") -> None:
        self.ready = False
        self.told = told

    def good(self, told: str) -> None:
        """From now on it is ready."""
        self.ready, self.told = True, told

    def hindered(self, why: str) -> None:
        """From now on it is not ready."""
        self.ready, self.told = False, why


class Phases(Collector):
    """`conch_services{ready}`: how many services there are, by their Ready condition."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Count the services of the store."""
        count = self._store.readiness()
        family = GaugeMetricFamily("conch_services", "Services, by their Ready condition.", labels=["ready"])
        for truth in ("True", "False", "Unknown"):
            family.add_metric([truth], count[truth])
        return [family]


class Tasks(Collector):
    """`conch_tasks`: how many asyncio tasks this process has. It follows the work under way, and does not grow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Count the tasks."""
        yield GaugeMetricFamily("conch_tasks", "asyncio tasks of this process.", len(asyncio.all_tasks(self._loop)))


async def serve(health: Health, probe_port: int, metrics_port: int) -> Callable[[], Awaitable[object]]:
    """Open the probe and metrics ports on all addresses. Return what closes them."""

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text=f"{health.told}\n", status=200 if health.ready else 503)

    probes, metrics = web.Application(), web.Application()
    probes.add_routes([web.get("/healthz", alive), web.get("/readyz", ready)])
    metrics.add_routes([web.get("/metrics", make_aiohttp_handler(REGISTRY))])
    async with contextlib.AsyncExitStack() as stack:
        for app, port in ((probes, probe_port), (metrics, metrics_port)):
            await stack.enter_async_context(Listener(app, port))
        return stack.pop_all().aclose
