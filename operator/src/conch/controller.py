"""Start-up of the operator: permissions, leader election, watches and workers.

Event handlers only fill the stores and add keys to the queue (`events`). Workers start once all kinds are listed, so no
reconcile sees a part of a service.
"""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import structlog
from prometheus_client import REGISTRY

from conch import logs, shutdown
from conch.api.child_kinds import watched_kinds
from conch.api.kinds import CONFIG_MAP, GATEWAYS, INFERENCE_SERVICE, LEASE, NAMESPACE, Kind
from conch.blocking import report_blocking
from conch.claims import Claims
from conch.clock import SteadyClock
from conch.contests import Contests
from conch.desire import PodDefaults
from conch.events.handlers import EventHandlers
from conch.nesting import allow_deep_objects
from conch.observe import Gateways, SignaturePolicies, Store
from conch.observe.capacity import Capacity
from conch.preflight import check_permissions
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.settings import Settings, SettingsError
from conch.shutdown import cancel_on_signal
from conch.signals import Agents, Capacities, Collector, Installations, Warnings
from conch.signals.reader import Reader
from conch.telemetry import Health, Readiness, Tasks, serve
from conch.tls_buffers import limit_tls_buffers
from conch.workers import run_worker
from conch.write import CallError, EventWriter, Server, Writer, latest_warning, read_lease, try_read_capacities
from conch.write.leader import Election

_log = structlog.get_logger("conch")


async def watch_and_reconcile(settings: Settings, server: Server, store: Store, queue: WorkQueue) -> None:
    """Watch all kinds and reconcile services until cancelled."""
    # An operator with permissions in some namespaces only cannot watch Gateways, which may be in any namespace.
    gateways = None if settings.namespaces else Gateways()
    kinds = [kind for kind in watched_kinds(with_keda=settings.metrics_api == "keda") if kind != INFERENCE_SERVICE]
    kinds += GATEWAYS if gateways is not None else ()
    policies = SignaturePolicies(settings.lease_namespace)
    handlers = EventHandlers(store, gateways, queue, policies, settings.label_selector)
    clock = SteadyClock()
    reader = Reader()  # one for all collectors: the answers of a namespace share its part of the time
    agents, collector = Agents(queue.add, reader), Collector(queue.add, reader, clock, settings.prometheus_servers)
    capacities = Capacities(
        queue.add, _unknown_capacities if settings.namespaces else partial(try_read_capacities, server)
    )
    warnings = Warnings(queue.add, partial(latest_warning, server))
    installations = Installations(queue.add, partial(read_lease, server))
    writer, event_writer = Writer(server, handlers.handle_written), EventWriter(server, settings.identity)
    claims = Claims(settings.installation or None, installations, event_writer, clock)
    reconcile = Reconciler(
        store=store,
        gateways=gateways,
        policies=policies,
        agents=agents,
        collector=collector,
        capacities=capacities,
        warnings=warnings,
        claims=claims,
        contests=Contests(),
        writer=writer,
        event_writer=event_writer,
        defaults=PodDefaults(
            settings.serving_image, settings.pull_policy, settings.max_model_bytes, settings.tmp_size_limit
        ),
        metrics_api=settings.metrics_api,
        prometheus=settings.prometheus,
        clock=clock,
    )
    async with contextlib.AsyncExitStack() as stack:
        for signal in (agents, collector, capacities, warnings, installations):
            stack.push_async_callback(signal.close)
        stack.callback(queue.close)
        # Watches stay open: they have their own connections.
        watches = await stack.enter_async_context(await Server.connect(connections=0))
        async with asyncio.TaskGroup() as group:
            # Services first: the memory for their children depends on their number.
            policy_informers = handlers.build_policy_informers(watches, settings.namespaces)
            services = handlers.build_informers(watches, (INFERENCE_SERVICE,), settings.namespaces)
            for informers in (
                services,
                policy_informers,
                handlers.build_informers(watches, kinds, settings.namespaces),
            ):
                for informer in informers:
                    group.create_task(informer.run())
                for informer in informers:
                    await informer.listed.wait()
            handlers.listed.set()
            _log.info("watching", workers=settings.workers)
            for _ in range(settings.workers):
                group.create_task(run_worker(queue, reconcile))


async def _unknown_capacities(namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Return unknown capacities: an operator with permissions in some namespaces only cannot list nodes."""
    return dict.fromkeys(namespaces, Capacity(unknown="the operator serves some namespaces only, and lists no nodes"))


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM, or until it loses its Lease.

    Raises:
        CallError: there is no kubeconfig, or a permission is missing.
    """
    store = Store(settings.scope.selects if settings.label_selector else None)
    queue, health = WorkQueue(), Health()
    REGISTRY.register(Readiness(store))
    REGISTRY.register(Tasks(asyncio.get_running_loop()))
    close = await serve(health, settings.probe_port, settings.metrics_port)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(close)
        stack.enter_context(report_blocking())
        election = None
        if settings.lease_namespace:
            # Its own connection: a renewal waits for no other call.
            elector = await stack.enter_async_context(await Server.connect(connections=1))
            election = Election(
                elector,
                settings.lease_namespace,
                settings.lease_name,
                settings.identity,
                clock=time.monotonic,
                scope=settings.scope,
            )
        write_seconds = election.seconds_left if election else None
        server = await stack.enter_async_context(await Server.connect(write_seconds=write_seconds))
        cancel_on_signal()

        async def work() -> None:
            health.set_ready("leading")
            _log.info("leading", identity=settings.identity)
            await watch_and_reconcile(settings, server, store, queue)

        try:
            await check_permissions(
                server,
                watched_kinds(with_keda=settings.metrics_api == "keda"),
                settings.namespaces,
                health,
                cluster_kinds=() if settings.namespaces else GATEWAYS,
                calls=[*([(LEASE, election.check)] if election else ()), *_list_policy_checks(server, settings)],
            )
            health.set_ready("standing by")
            await (lead(election, work) if election else work())
        except asyncio.CancelledError:
            _log.info("stopping")


def _list_policy_checks(server: Server, settings: Settings) -> list[tuple[Kind, Callable[[], Awaitable[None]]]]:
    """Return the calls that read signature policies: without one of them, models might be loaded unsigned."""
    checks = [(NAMESPACE, partial(server.check_list, NAMESPACE, "", name)) for name in settings.namespaces or ("",)]
    home = settings.lease_namespace
    return [*checks, *([(CONFIG_MAP, partial(server.check_list, CONFIG_MAP, home))] if home else [])]


async def lead(election: Election, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` while this replica holds the Lease; release the Lease after `work` has ended.

    Raises:
        ExceptionGroup: LeaseLostError, or the errors of `work`.
    """
    try:
        await election.acquire()
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(election.renew())
            await work()
            keeper.cancel()
    finally:
        await election.release()


def main() -> None:
    """Entry point of the image."""
    allow_deep_objects()
    limit_tls_buffers()
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.exit(f"conch: {error}")
    logs.configure(settings.log_format, settings.log_level)
    # The modules stay to the end. Visiting them takes a full garbage collection some 45 ms, in which all else waits.
    gc.freeze()
    shutdown.run("conch", run(settings), CallError)
