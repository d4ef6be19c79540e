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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import kopf
import structlog
from prometheus_client import REGISTRY

from conch import logs
from conch.api.kinds import HTTP_ROUTE, INFERENCE_SERVICE, WATCHED, Kind, kind_of
from conch.desire import Images
from conch.observe import Store
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.settings import Settings, SettingsError
from conch.signals import Agents, Gauges
from conch.telemetry import Health, Phases, serve
from conch.workers import work
from conch.write import CallError, EventWriter, Server, Writer
from conch.write.leader import lead, resign
from conch_contract import names

# Deletions that fall into the gap of a broken watch are told by nobody; an audit of uids finds them.
AUDIT_SECONDS: Final = 600
# How often a cluster without the Gateway API is asked whether it has come.
DISCOVERY_SECONDS: Final = 30
_log = structlog.get_logger("conch")


class StartAgainError(Exception):
    """This process has to end so that the next one sees more; the kubelet starts it."""


def watch(kind: Kind, store: Store, queue: WorkQueue, listed: asyncio.Event, registry: kopf.OperatorRegistry) -> None:
    """Have kopf feed a kind's events into the store, and the services they concern into the queue.

    The handlers are coroutines that await nothing: kopf would run plain functions in threads.
    """
    where = kind.group, kind.version, kind.plural

    @kopf.index(*where, id=f"store-{kind.plural}", registry=registry)
    async def take_in(body: kopf.Body, **_: Any) -> None:
        key = store.put(dict(body))
        if key is not None:
            queue.add(key)

    @kopf.on.event(*where, id=f"watch-{kind.plural}", registry=registry)
    async def notice(event: Mapping[str, Any], **_: Any) -> None:
        listed.set()
        gone = event["type"] == "DELETED"
        key = store.discard(event["object"]) if gone else store.put(event["object"])
        if key is not None:
            queue.add(key)


class NoDiffBase(kopf.DiffBaseStorage):
    """Kopf would copy every object to find out what changed in it; nobody here asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf as a stream of events and nothing more."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our events tell our story
    settings.scanning.disabled = True  # no watches on CRDs and namespaces, and no rights for them
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.peering.standalone = True  # the Lease elects
    for kind in WATCHED:
        if kind != INFERENCE_SERVICE:
            settings.watching.label_selectors[kind.group, kind.plural] = names.LABEL_SERVICE
    return settings


async def act(settings: Settings, server: Server, store: Store, queue: WorkQueue) -> None:
    """Watch and work until cancelled."""

    def seen(body: Mapping[str, Any]) -> None:
        """Take in what a write brought. A changed child is looked at again: its watch event will be no news."""
        key = store.put(body)
        if key is not None and kind_of(body) != INFERENCE_SERVICE:
            queue.add(key)

    agents, gauges = Agents(queue.add), Gauges(queue.add)
    reconcile = Reconciler(
        store=store,
        agents=agents,
        gauges=gauges,
        writer=Writer(server, seen),
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
            group.create_task(_audit(server, store, queue, settings.namespaces))
            group.create_task(_begin_anew_with_gateways(server))
    finally:
        stop.set()
        queue.close()
        await agents.close()
        await gauges.close()


async def _watch_all(settings: Settings, registry: kopf.OperatorRegistry, stop: asyncio.Event) -> None:
    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
        identity=settings.identity,  # type: ignore[arg-type]  # else kopf asks who the user is
    )
    raise RuntimeError("kopf ended by itself")


async def _audit(server: Server, store: Store, queue: WorkQueue, namespaces: Sequence[str]) -> None:
    """Now and then, forget what was deleted while a watch was broken."""
    while True:
        await asyncio.sleep(AUDIT_SECONDS)
        for kind in WATCHED:
            selector = "" if kind == INFERENCE_SERVICE else names.LABEL_SERVICE
            try:
                lists = [await server.uids(kind, selector, namespace) for namespace in namespaces or ("",)]
            except CallError as error:
                _log.warning("audit put off", kind=kind.name, error=error.message)
                continue
            for key in store.evict(kind, frozenset().union(*lists)):
                queue.add(key)


async def _begin_anew_with_gateways(server: Server) -> None:
    """End the process when the Gateway API comes to a cluster that lacked it: kopf learns of kinds at its start.

    Why not kopf's own watch on CRDs: it asks for rights to all of them, and holds megabytes of them.
    """
    lacked = False
    while True:
        try:
            served = await server.serves(HTTP_ROUTE)
        except CallError as error:
            _log.warning("cannot tell whether there is a Gateway API", error=error.message)
        else:
            if served and lacked:
                raise StartAgainError("the Gateway API has come to this cluster; start again to watch its routes")
            if served:
                return
            lacked = True
        await asyncio.sleep(DISCOVERY_SECONDS)


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


async def _elected(settings: Settings, server: Server, leading: Callable[[], Awaitable[None]]) -> None:
    """Act while the Lease is ours; without one, act at once. Ends by an error, whichever of the two ends first."""
    if not settings.lease_namespace:
        await leading()
        return
    acting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def act_and_tell() -> None:
        try:
            await leading()
        except Exception as error:  # noqa: BLE001  handed to the waiting side, which ends the process with it
            acting.set_exception(error)

    election = asyncio.create_task(
        lead(server, settings.lease_namespace, settings.lease_name, settings.identity, act_and_tell)
    )
    try:
        await asyncio.wait({election, acting}, return_when=asyncio.FIRST_COMPLETED)
        if acting.done():
            acting.result()
        raise RuntimeError("the Lease was lost to another replica; start again to stand by")
    finally:
        election.cancel()
        await asyncio.gather(election, return_exceptions=True)


def main() -> None:
    """Entry point of the image."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.exit(f"conch: {error}")
    logs.configure(settings.log_format, settings.log_level)
    try:
        asyncio.run(run(settings))
    except CallError as error:
        sys.exit(f"conch: {error}")
    except BaseExceptionGroup as group:
        if wish := group.subgroup(StartAgainError):
            sys.exit(f"conch: {wish.exceptions[0]}")
        raise
