"""What kopf is told to watch, and where its events go: the stores, and the queue of services that they concern.

There is no `on.create`, no timer and no finalizer, so kopf writes nothing to anybody's object. An index per kind makes
kopf hold every event handler back until all kinds are listed.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import kopf
import structlog

from conch.api.kinds import (
    ENDPOINT_SLICE,
    GATEWAYS,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    OPTIONAL,
    SCALED_OBJECT,
    WATCHED,
    Kind,
    Ref,
    ServiceKey,
    kind_of,
)
from conch.observe import Gateways, Store, owner_key
from conch.observe.fields import labels_of
from conch.observe.gateways import GatewayKey, named_gateways
from conch.queue import WorkQueue
from conch.write import CallError, Server
from conch_contract import names

# Deletions that fall into the gap of a broken watch are told by nobody; an audit of uids finds them.
AUDIT_SECONDS: Final = 600
# A pod comes into the EndpointSlices of two Services, its revision's and the root Service. One reconcile for both.
SLICE_SECONDS: Final = 0.05
_TURNS: Final = 0.1  # seconds; many turns of the loop
# Watched without the label of a service; of routes, those of others may take its requests.
UNSELECTED: Final = frozenset({INFERENCE_SERVICE, HTTP_ROUTE})
_log = structlog.get_logger("conch")


@dataclass(frozen=True)
class Intake:
    """Where events go. `listed` is set by the first one after all kinds have been listed."""

    store: Store
    gateways: Gateways | None  # None: they are not watched
    queue: WorkQueue
    kinds: tuple[Kind, ...] = WATCHED  # services, and what belongs to them
    listed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, body: Mapping[str, Any], *, gone: bool = False) -> None:
        """Take in a service, or what belongs to one."""
        competitors = self._competitors(body)
        key = self.store.discard(body) if gone else self.store.put(body)
        if key is not None:
            if kind_of(body) == ENDPOINT_SLICE:
                self.queue.add_after(key, SLICE_SECONDS)
            else:
                self.queue.add(key)
            for competitor in competitors | self._competitors(body):
                self.queue.add(competitor)

    def _competitors(self, body: Mapping[str, Any]) -> frozenset[ServiceKey]:
        """Return the services with a hostname of the service of an object, if it is the service or its route."""
        key = owner_key(body) if self.listed.is_set() and kind_of(body) in {INFERENCE_SERVICE, HTTP_ROUTE} else None
        return frozenset(self.store.hostnames.others(key)) if key is not None else frozenset()

    def take_route(self, body: Mapping[str, Any], *, gone: bool = False) -> None:
        """Take in an HTTPRoute: that of a service, or one that may take requests of services.

        Routes are watched without a selector. To the store, one without the label of a service is deleted, as the
        objects of the other kinds are by their selector.
        """
        self.take(body, gone=gone or names.LABEL_SERVICE not in labels_of(body))
        self.queue_claimants(self.store.routes.discard(body) if gone else self.store.routes.put(body))

    def queue_claimants(self, hostnames: frozenset[str]) -> None:
        """Queue the services that claim these hostnames; before all are listed, every service is queued anyway."""
        for key in self.store.hostnames.claimants(hostnames) if self.listed.is_set() else ():
            self.queue.add(key)

    def take_gateway(self, body: Mapping[str, Any], *, gone: bool = False) -> None:
        """Take in a Gateway or a GatewayClass."""
        if self.gateways is not None:
            self.rouse(self.gateways.discard(body) if gone else self.gateways.put(body))

    def rouse(self, changed: frozenset[GatewayKey]) -> None:
        """Queue the services that name these Gateways; before all are listed, every service is queued anyway."""
        if changed and self.listed.is_set():
            for key in services_at(self.store, changed):
                self.queue.add(key)


def services_at(store: Store, gateways: frozenset[GatewayKey]) -> list[ServiceKey]:
    """Return the services that name any of these Gateways. Unpacks every service, so ask only after a change."""
    bodies = ((key, store.get(key, Ref(INFERENCE_SERVICE, key.name))) for key in store.services() if gateways)
    return [key for key, body in bodies if body is not None and not gateways.isdisjoint(named_gateways(body))]


def watch(intake: Intake, registry: kopf.OperatorRegistry) -> None:
    """Have kopf feed all kinds into an intake."""
    for kind in intake.kinds:
        watch_kind(kind, intake.take_route if kind == HTTP_ROUTE else intake.take, intake.listed, registry)
    for kind in GATEWAYS if intake.gateways is not None else ():
        watch_kind(kind, intake.take_gateway, intake.listed, registry)


def watch_kind(kind: Kind, take: Callable[..., None], listed: asyncio.Event, registry: kopf.OperatorRegistry) -> None:
    """Have kopf hand over a kind's events.

    The handlers are coroutines that await nothing: kopf would run plain functions in threads.
    """
    where = kind.group, kind.version, kind.plural

    @kopf.index(*where, id=f"store-{kind.plural}", registry=registry)
    async def take_in(body: kopf.Body, **_: Any) -> None:
        take(dict(body))

    @kopf.on.event(*where, id=f"watch-{kind.plural}", registry=registry)
    async def notice(event: Mapping[str, Any], **_: Any) -> None:
        listed.set()
        take(event["object"], gone=event["type"] == "DELETED")


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
    for kind in (*WATCHED, SCALED_OBJECT):
        if kind not in UNSELECTED:
            settings.watching.label_selectors[kind.group, kind.plural] = names.LABEL_SERVICE
    return settings


async def run_kopf(
    registry: kopf.OperatorRegistry,
    namespaces: Sequence[str],
    identity: str,
    stop: asyncio.Event,
    take_signals: Callable[[], None],
) -> None:
    """Watch until told to stop; no namespaces means all. `take_signals` takes from kopf what is not its own to end."""

    @kopf.on.startup(registry=registry)
    async def started(**_: Any) -> None:
        await asyncio.sleep(_TURNS)  # kopf takes the signals a turn of the loop after it has called this
        take_signals()

    await kopf.operator(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        identity=identity,  # type: ignore[arg-type]  # else kopf asks who the user is
    )
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        # It has failed at nothing, or it would have said so: a signal came before it was taken from it.
        take_signals()
        signal.raise_signal(signal.SIGTERM)


async def audit(server: Server, intake: Intake, namespaces: Sequence[str]) -> None:
    """Now and then, forget what was deleted while a watch was broken."""
    while True:
        await asyncio.sleep(AUDIT_SECONDS)
        await forget_lost(server, intake, namespaces)


async def forget_lost(server: Server, intake: Intake, namespaces: Sequence[str]) -> None:
    """Forget what the API server no longer has; what it does not list at the moment is left as it is."""
    for kind in intake.kinds:
        known = intake.store.uids(kind)  # before the list: what comes while it is under way is not lost
        routes = intake.store.routes.uids() if kind == HTTP_ROUTE else frozenset()
        selector = "" if kind in UNSELECTED else names.LABEL_SERVICE
        there = await alive(server, kind, selector, namespaces or ("",))
        lost = intake.store.evict(kind, known - there) if there is not None else set()
        # Other services may get the requests of a hostname now.
        for key in {*lost, *intake.store.services()} if lost and kind in {INFERENCE_SERVICE, HTTP_ROUTE} else lost:
            intake.queue.add(key)
        if there is not None:
            intake.queue_claimants(intake.store.routes.evict(routes - there))
    if intake.gateways is None:
        return
    for kind in GATEWAYS:
        known = intake.gateways.uids(kind)
        there = await alive(server, kind)
        if there is not None:
            intake.rouse(intake.gateways.evict(kind, known - there))


async def alive(
    server: Server, kind: Kind, selector: str = "", namespaces: Sequence[str] = ("",)
) -> frozenset[str] | None:
    """The uids of all objects of a kind; None if the API server does not tell."""
    try:
        lists = [await server.uids(kind, selector, namespace) for namespace in namespaces]
    except CallError as error:
        if error.gone and kind in OPTIONAL:
            return frozenset()  # its CustomResourceDefinition is not there, and so are no objects
        _log.warning("audit put off", kind=kind.name, error=error.message)
        return None
    return frozenset().union(*lists)
