"""Start-up of the metrics API: watches of pods, the certificate, and the server."""

import asyncio
import sys
import time
from functools import partial
from typing import Final

import structlog

from conch import logs, shutdown
from conch.api.kinds import CONFIG_MAP, POD, Ref
from conch.blocking import report_blocking
from conch.events.informer import Cache, Informer
from conch.listening import Listener
from conch.metrics.access import Access, FrontProxy
from conch.metrics.pods import Pods
from conch.metrics.registration import Registration
from conch.metrics.scraper import Scraper
from conch.metrics.server import MetricsApi, build_tls_context
from conch.metrics.settings import MetricsSettings
from conch.nesting import allow_deep_objects
from conch.preflight import check_permissions
from conch.settings import SettingsError
from conch.shutdown import RestartError, cancel_on_signal
from conch.telemetry import Health, serve
from conch.tls_buffers import limit_tls_buffers
from conch.write import CallError, Server
from conch.write.lists import Listing
from conch_contract import names

AUTHENTICATION: Final = ("kube-system", Ref(CONFIG_MAP, "extension-apiserver-authentication"))
_PRUNE_SECONDS: Final = 60
_log = structlog.get_logger("conch.metrics")


async def read_front_proxy(server: Server) -> FrontProxy:
    """Return the front proxy of the API server.

    Raises:
        CallError: it cannot be read.
        ValueError: the cluster has no aggregation layer.
    """
    there = await server.get(*AUTHENTICATION)
    return FrontProxy.parse((there or {}).get("data") or {})


async def serve_metrics(settings: MetricsSettings, server: Server, watches: Server, health: Health) -> None:
    """Serve the metrics API until cancelled. `watches` is the connection of the watches, which stay open."""
    proxy = await read_front_proxy(server)
    context = build_tls_context(proxy)
    registration = Registration(server, settings.service, settings.namespace, settings.life, context, health)
    certificate = registration.issue_first()
    pods, scraper = Pods(), Scraper(time.monotonic, settings.window)
    listener = Listener(MetricsApi(pods, scraper, Access(server), proxy).app(), settings.port, context)
    async with listener, asyncio.TaskGroup() as group:
        for namespace in settings.namespaces or ("",):
            cache = Cache(pods.put, pods.discard, partial(pods.retain, namespace))
            informer = Informer(watches, Listing(POD, namespace, names.LABEL_SERVICE), cache)
            group.create_task(informer.run())
        group.create_task(registration.keep(certificate))
        group.create_task(_prune(pods, scraper))
        group.create_task(_restart_on_change(server, proxy))


async def _prune(pods: Pods, scraper: Scraper) -> None:
    """Remove the readings of deleted pods."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        scraper.forget(pods.uids())


async def _restart_on_change(server: Server, proxy: FrontProxy) -> None:
    """End the process when the API server's front proxy has changed: a TLS context cannot drop a CA."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        try:
            changed = await read_front_proxy(server) != proxy
        except CallError as error:
            _log.warning("front proxy not read", error=error.message)
        else:
            if changed:
                raise RestartError("the certificate authority of the API server's front proxy has changed")


async def run(settings: MetricsSettings) -> None:
    """Run the metrics API until SIGTERM.

    Raises:
        CallError: there is no kubeconfig, or a permission is missing.
    """
    health = Health()
    close = await serve(health, settings.probe_port, settings.metrics_port)
    async with await Server.connect() as server, await Server.connect(connections=0) as watches:
        try:
            cancel_on_signal()
            calls = [(CONFIG_MAP, partial(read_front_proxy, server))]
            await check_permissions(server, [POD], settings.namespaces, health, calls=calls)
            health.set_not_ready("not registered yet")
            with report_blocking():
                await serve_metrics(settings, server, watches, health)
        except asyncio.CancelledError:
            _log.info("stopping")
        finally:
            await close()


def main() -> None:
    """Entry point of `conch-metrics`."""
    allow_deep_objects()
    limit_tls_buffers()
    try:
        settings = MetricsSettings.read()
    except SettingsError as error:
        sys.exit(f"conch-metrics: {error}")
    logs.configure(settings.log_format, settings.log_level)
    shutdown.run("conch-metrics", run(settings), CallError, ValueError)
