"""Start-up: kopf watches and hands over, a Lease says who acts, workers work.

The kopf handlers only feed the stores and add keys to the queue (watch.py). The first event that kopf lets through
starts the workers: all kinds are listed by then, so no reconcile ever sees half a world.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import kopf
import structlog
from prometheus_client import REGISTRY

from conch import ending, logs
from conch.api.kinds import ADD_ONS, GATEWAYS, INFERENCE_SERVICE, LEASE, SCALED_OBJECT, WATCHED, Kind, kind_of
from conch.claims import Claims
from conch.contests import Contests
from conch.desire import Images
from conch.ending import StartAgainError, end_by_signal
from conch.nesting import allow_deep_objects
from conch.observe import Gateways, Store
from conch.observe.capacity import Capacity
from conch.preflight import check_permissions
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.settings import Settings, SettingsError
from conch.signals import Agents, Capacities, Gauges, Installations, Warnings
from conch.telemetry import Health, Phases, serve
from conch.watch import Intake, audit, run_kopf, watch
from conch.workers import work
from conch.write import CallError, EventWriter, Server, Writer, latest_warning, look_if_it_can, read_lease
from conch.write.leader import Election

# How often a cluster that lacks an API is asked whether it has come.
DISCOVERY_SECONDS: Final = 30
_log = structlog.get_logger("conch")


async def act(
    settings: Settings, server: Server, store: Store, queue: WorkQueue, take_signals: Callable[[], None]
) -> None:
    """Watch and work until cancelled."""

    def seen(body: Mapping[str, Any]) -> None:
        """Take in what a write brought. A changed child is looked at again: its watch event will be no news."""
        key = store.put(body)
        if key is not None and kind_of(body) != INFERENCE_SERVICE:
            queue.add(key)

    # Where the rights end at namespaces, nobody can tell what Gateways there are.
    gateways = None if settings.namespaces else Gateways()
    kinds = namespaced_kinds(settings)
    intake = Intake(store, gateways, queue, kinds)
    agents, gauges = Agents(queue.add), Gauges(queue.add)
    capacities = Capacities(queue.add, _nobody_looks if settings.namespaces else partial(look_if_it_can, server))
    warnings = Warnings(queue.add, partial(latest_warning, server))
    installations = Installations(queue.add, partial(read_lease, server))
    writer, event_writer, contests = Writer(server, seen), EventWriter(server, settings.identity), Contests()
    claims = Claims(settings.installation or None, installations, event_writer, time.time)
    reconcile = Reconciler(
        store=store,
        gateways=gateways,
        agents=agents,
        gauges=gauges,
        capacities=capacities,
        warnings=warnings,
        claims=claims,
        contests=contests,
        writer=writer,
        event_writer=event_writer,
        images=Images(settings.serving_image, settings.pull_policy),
        metrics_api=settings.metrics_api,
        prometheus=settings.prometheus,
        clock=time.time,
    )
    registry = kopf.get_default_registry()
    watch(intake, registry)
    stop = asyncio.Event()
    try:
        # Workers end first: kopf, when it ends, cancels all tasks that are younger than it.
        async with asyncio.TaskGroup() as watching, asyncio.TaskGroup() as working:
            for what, late in ADD_ONS.items():  # they ask before kopf does, lest they miss the change
                if late[0] in kinds:
                    working.create_task(_begin_anew_with(server, what, late))
            watching.create_task(run_kopf(registry, settings.namespaces, settings.identity, stop, take_signals))
            await intake.listed.wait()
            _log.info("watching", workers=settings.workers)
            for _ in range(settings.workers):
                working.create_task(work(queue, reconcile))
            working.create_task(audit(server, intake, settings.namespaces))
    finally:
        stop.set()
        queue.close()
        await agents.close()
        await gauges.close()
        await capacities.close()
        await warnings.close()
        await installations.close()


async def _nobody_looks(namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Where the rights end at namespaces, nobody can tell what nodes there are."""
    return dict.fromkeys(namespaces, Capacity(unknown="the operator serves some namespaces only, and lists no nodes"))


async def _begin_anew_with(server: Server, what: str, kinds: Sequence[Kind]) -> None:
    """End the process when an API comes to a cluster that lacked it: kopf learns of kinds at its start.

    Why not kopf's own watch on CRDs: it asks for rights to all of them, and holds megabytes of them.
    """
    lacked = False
    while True:
        try:
            served = all([await server.serves(kind) for kind in kinds])
        except CallError as error:
            _log.warning("cannot tell whether an API is there", api=what, error=error.message)
        else:
            if served and lacked:
                raise StartAgainError(f"{what} has come to this cluster")
            if served:
                return
            lacked = True
        await asyncio.sleep(DISCOVERY_SECONDS)


def namespaced_kinds(settings: Settings) -> tuple[Kind, ...]:
    """Return the kinds that the operator watches in the namespaces that it serves."""
    return (*WATCHED, SCALED_OBJECT) if settings.metrics_api == "keda" else WATCHED


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM, or until it loses its Lease.

    Raises:
        CallError: there is no kubeconfig, or a permission is missing.
    """
    store, queue, health = Store(), WorkQueue(), Health()
    REGISTRY.register(Phases(store))
    close = await serve(health, settings.probe_port, settings.metrics_port)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(close)
        election = None
        if settings.lease_namespace:
            # A connection of its own: a renewal waits for no other call.
            elector = await stack.enter_async_context(await Server.connect(connections=1))
            election = Election(
                elector, settings.lease_namespace, settings.lease_name, settings.identity, clock=time.monotonic
            )
        write_seconds = election.seconds_left if election else None
        server = await stack.enter_async_context(await Server.connect(write_seconds=write_seconds))
        take_signals = end_by_signal()

        async def leading() -> None:
            health.good("leading")
            _log.info("leading", identity=settings.identity)
            await act(settings, server, store, queue, take_signals)

        try:
            await check_permissions(
                server,
                namespaced_kinds(settings),
                settings.namespaces,
                health,
                cluster_kinds=() if settings.namespaces else GATEWAYS,
                calls=[(LEASE, election.check)] if election else (),
            )
            health.good("standing by")
            await (elected(election, leading) if election else leading())
        except asyncio.CancelledError:
            _log.info("stopping")


async def elected(election: Election, leading: Callable[[], Awaitable[None]]) -> None:
    """Run `leading` while this replica holds the Lease; release it after `leading` has ended.

    Raises:
        ExceptionGroup: LeaseLostError, or the errors of `leading`.
    """
    try:
        await election.win()
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(election.keep())
            await leading()
            keeper.cancel()
    finally:
        await election.resign()


def main() -> None:
    """Entry point of the image."""
    allow_deep_objects()
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.exit(f"conch: {error}")
    logs.configure(settings.log_format, settings.log_level)
    ending.run("conch", run(settings), CallError)
