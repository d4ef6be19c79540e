"""Start-up of the metrics API: pods are watched, the certificate is kept, questions are answered."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import kopf
import structlog
from aiohttp import web

from conch import ending, logs
from conch.api.kinds import CONFIG_MAP, POD, Ref
from conch.ending import StartAgainError, end_by_signal
from conch.metrics.access import Access, FrontProxy
from conch.metrics.pods import Pods
from conch.metrics.registration import Registration
from conch.metrics.scraper import Scraper
from conch.metrics.server import MetricsApi, tls
from conch.metrics.settings import MetricsSettings
from conch.nesting import allow_deep_objects
from conch.preflight import check_permissions
from conch.settings import SettingsError
from conch.telemetry import Health, serve
from conch.watch import AUDIT_SECONDS, alive, run_kopf, watch_kind
from conch.write import CallError, Server
from conch_contract import names

AUTHENTICATION: Final = ("kube-system", Ref(CONFIG_MAP, "extension-apiserver-authentication"))
_PRUNE_SECONDS: Final = 60
_log = structlog.get_logger("conch.metrics")


async def front_proxy(server: Server) -> FrontProxy:
    """Read how the API server introduces users.

    Raises:
        CallError: it cannot be read.
        ValueError: the cluster has no aggregation layer.
    """
    there = await server.get(*AUTHENTICATION)
    return FrontProxy.parse((there or {}).get("data") or {})


async def answer(settings: MetricsSettings, server: Server, health: Health, take_signals: Callable[[], None]) -> None:
    """Answer autoscalers until cancelled."""
    proxy = await front_proxy(server)
    context = tls(proxy)
    registration = Registration(server, settings.service, settings.namespace, settings.life, context, health)
    certificate = registration.first()
    pods, scraper = Pods(), Scraper(time.monotonic, settings.window)
    runner = web.AppRunner(MetricsApi(pods, scraper, Access(server), proxy).app(), access_log=None)
    await runner.setup()
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            listed = asyncio.Event()
            registry = kopf.get_default_registry()  # it knows how to log in

            def take(body: Mapping[str, Any], *, gone: bool = False) -> None:
                (pods.discard if gone else pods.put)(body)

            watch_kind(POD, take, listed, registry)
            group.create_task(run_kopf(registry, settings.namespaces, settings.identity, stop, take_signals))
            await web.TCPSite(runner, None, settings.port, ssl_context=context).start()
            group.create_task(registration.keep(certificate))
            group.create_task(_prune(pods, scraper))
            group.create_task(_audit(server, pods, settings.namespaces))
            group.create_task(_begin_anew(server, proxy))
    finally:
        stop.set()
        await runner.cleanup()
        await scraper.close()


async def _prune(pods: Pods, scraper: Scraper) -> None:
    """Forget the readings of pods that are gone."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        scraper.forget(pods.uids())


async def _audit(server: Server, pods: Pods, namespaces: Sequence[str]) -> None:
    """Now and then, forget pods whose deletion was told while the watch was broken."""
    while True:
        await asyncio.sleep(AUDIT_SECONDS)
        known = pods.uids()  # before the list: what comes while it is under way is not lost
        there = await alive(server, POD, names.LABEL_SERVICE, namespaces or ("",))
        if there is not None:
            pods.keep(pods.uids() - (known - there))


async def _begin_anew(server: Server, proxy: FrontProxy) -> None:
    """End the process when the API server's front proxy has changed: a TLS context forgets no authority."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        try:
            changed = await front_proxy(server) != proxy
        except CallError as error:
            _log.warning("cannot tell whether the front proxy has changed", error=error.message)
        else:
            if changed:
                raise StartAgainError("the certificate authority of the API server's front proxy has changed")


async def run(settings: MetricsSettings) -> None:
    """Run the metrics API until SIGTERM.

    Raises:
        CallError: there is no kubeconfig, or a permission is missing.
    """
    health = Health()
    close = await serve(health, settings.probe_port, settings.metrics_port)
    async with await Server.connect() as server:
        try:
            take_signals = end_by_signal()
            calls = [(CONFIG_MAP, partial(front_proxy, server))]
            await check_permissions(server, [POD], settings.namespaces, health, calls=calls)
            health.hindered("not registered yet")
            await answer(settings, server, health, take_signals)
        except asyncio.CancelledError:
            _log.info("stopping")
        finally:
            await close()


def main() -> None:
    """Entry point of `conch-metrics`."""
    allow_deep_objects()
    try:
        settings = MetricsSettings.read()
    except SettingsError as error:
        sys.exit(f"conch-metrics: {error}")
    logs.configure(settings.log_format, settings.log_level)
    ending.run("conch-metrics", run(settings), CallError, ValueError)
