"""Start-up: kopf watches and hands over, a Lease says who acts, workers work.

The kopf handlers only feed the store and add keys to the queue. There is no `on.create`, no timer and no
finalizer, so kopf writes nothing to anybody's object. An index per kind makes kopf hold every event handler
back until all kinds are listed; the first one that is let through starts the workers, so that no reconcile
ever sees half a world.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import kopf
import structlog
from prometheus_client import REGISTRY

from conch import logs
from conch.api.kinds import INFERENCE_SERVICE, WATCHED, Kind
from conch.desire import Images
from conch.observe import Store
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.settings import Settings, SettingsError
from conch.signals import Agents
from conch.telemetry import Health, Phases, serve
from conch.workers import work
from conch.write import EventWriter, Server, Writer
from conch.write.leader import lead, resign
from conch_contract import names

# Deletions that fall into the gap of a broken watch are told by nobody; an audit of uids finds them.
AUDIT_SECONDS: Final = 600
_log = structlog.get_logger("conch")


def watch(kind: Kind, store: Store, queue: WorkQueue, listed: asyncio.Event, registry: kopf.OperatorRegistry) -> None:
    """Have kopf feed a kind's events into the store, and the services they concern into the queue."""
    where = kind.group, kind.version, kind.plural

    @kopf.index(*where, id=f"store-{kind.plural}", registry=registry)
    def take_in(body: kopf.Body, **_: Any) -> None:
        key = store.put(dict(body))
        if key is not None:
            queue.add(key)

    @kopf.on.event(*where, id=f"watch-{kind.plural}", registry=registry)
    def notice(event: Mapping[str, Any], **_: Any) -> None:
        listed.set()
        gone = event["type"] == "DELETED"
        key = store.discard(event["object"]) if gone else store.put(event["object"])
        if key is not None:
            queue.add(key)


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf as a stream of events and nothing more."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our events tell our story
    settings.scanning.disabled = True  # no watches on CRDs and namespaces, and no rights for them
    settings.peering.standalone = True  # the Lease elects
    for kind in WATCHED:
        if kind != INFERENCE_SERVICE:
            settings.watching.label_selectors[kind.group, kind.plural] = names.LABEL_SERVICE
    return settings


async def act(settings: Settings, server: Server, store: Store, queue: WorkQueue) -> None:
    """Watch and work until cancelled."""
    agents = Agents(queue.add)
    reconcile = Reconciler(
        store=store,
        agents=agents,
        writer=Writer(server, store.put),
        event_writer=EventWriter(server, settings.identity),
        images=Images(settings.serving_image, settings.pull_policy),
        clock=time.time,
    )
    registry = kopf.get_default_registry()
    listed = asyncio.Event()
    for kind in WATCHED:
        watch(kind, store, queue, listed, registry)
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch_all(settings, registry, stop))
            await listed.wait()
            _log.info("watching", workers=settings.workers)
            for _ in range(settings.workers):
                group.create_task(work(queue, reconcile))
            group.create_task(_audit(server, store, queue))
    finally:
        stop.set()
        queue.close()
        await agents.close()


async def _watch_all(settings: Settings, registry: kopf.OperatorRegistry, stop: asyncio.Event) -> None:
    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
    )
    raise RuntimeError("kopf ended by itself")


async def _audit(server: Server, store: Store, queue: WorkQueue) -> None:
    """Now and then, forget what was deleted while a watch was broken."""
    while True:
        await asyncio.sleep(AUDIT_SECONDS)
        for kind in WATCHED:
            selector = "" if kind == INFERENCE_SERVICE else names.LABEL_SERVICE
            with contextlib.suppress(Exception):
                for key in store.evict(kind, await server.uids(kind, selector)):
                    queue.add(key)


async def run(settings: Settings) -> None:
    """Run the operator until it is told to stop or loses its Lease."""
    store, queue, health = Store(), WorkQueue(), Health()
    REGISTRY.register(Phases(store))
    close = await serve(health, settings.probe_port, settings.metrics_port)
    async with await Server.connect() as server:
        health.ready = True

        async def leading() -> None:
            health.leading = True
            _log.info("leading", identity=settings.identity)
            await act(settings, server, store, queue)

        task = asyncio.create_task(_elected(settings, server, leading))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            _log.info("stopping")
        finally:
            if health.leading and settings.lease_namespace:
                with contextlib.suppress(Exception):
                    await resign(server, settings.lease_namespace, settings.lease_name, settings.identity)
            await close()


async def _elected(settings: Settings, server: Server, leading: Any) -> None:
    if not settings.lease_namespace:
        await leading()
        return
    done = asyncio.Event()

    async def act_and_tell() -> None:
        try:
            await leading()
        finally:
            done.set()

    election = asyncio.create_task(
        lead(server, settings.lease_namespace, settings.lease_name, settings.identity, act_and_tell)
    )
    over = asyncio.create_task(done.wait())
    try:
        await asyncio.wait({election, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        election.cancel()
        over.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await election
    raise RuntimeError("the Lease was lost, or the watches ended; start again to stand by")


def main() -> None:
    """Entry point of the image."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.exit(f"conch: {error}")
    logs.configure(settings.log_format, settings.log_level)
    asyncio.run(run(settings))
