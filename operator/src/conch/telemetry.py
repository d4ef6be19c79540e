"""Probes and metrics of a process: /healthz and /readyz for the kubelet, /metrics for Prometheus."""

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
    """State of the probes. Ready: this process works, or stands by to lead."""

    def __init__(self, message: str = "starting") -> None:
        self.ready = False
        self.message = message

    def set_ready(self, message: str) -> None:
        """Set the process ready."""
        self.ready, self.message = True, message

    def set_not_ready(self, message: str) -> None:
        """Set the process not ready, with the reason."""
        self.ready, self.message = False, message


class Readiness(Collector):
    """`conch_services{ready}`: services by their Ready condition."""

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
    """`conch_tasks`: asyncio tasks of this process: their number follows the work in progress, and does not grow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Count the tasks."""
        yield GaugeMetricFamily("conch_tasks", "asyncio tasks of this process.", len(asyncio.all_tasks(self._loop)))


async def serve(health: Health, probe_port: int, metrics_port: int) -> Callable[[], Awaitable[object]]:
    """Open the probe and metrics ports on all addresses; return the function that closes them."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text=f"{health.message}\n", status=200 if health.ready else 503)

    probes, metrics = web.Application(), web.Application()
    probes.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    metrics.add_routes([web.get("/metrics", make_aiohttp_handler(REGISTRY))])
    async with contextlib.AsyncExitStack() as stack:
        for app, port in ((probes, probe_port), (metrics, metrics_port)):
            await stack.enter_async_context(Listener(app, port))
        return stack.pop_all().aclose
