"""Handlers of watch events: they update the caches and queue the affected services."""

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from conch.api.kinds import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    GATEWAYS,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    METADATA_ONLY,
    NAMESPACE,
    Kind,
    ServiceKey,
    kind_of,
    ref_of,
)
from conch.api.names import LABEL_POLICY, LABEL_SIGNATURE_POLICY, SIGNATURE_POLICY
from conch.events.informer import Cache, Informer
from conch.observe import Gateways, SignaturePolicies, Store, owner_key
from conch.observe.fields import labels_of
from conch.observe.gateways import GatewayKey
from conch.queue import Cause, WorkQueue
from conch.write import Server
from conch.write.lists import Listing
from conch_contract import names

# A pod is added to the EndpointSlices of two Services, its revision's and the root Service. One reconcile for both.
SLICE_SECONDS: Final = 0.05
# Watched without the label of a service: routes of other owners may match its requests.
UNSELECTED: Final = frozenset({INFERENCE_SERVICE, HTTP_ROUTE, *GATEWAYS})


@dataclass(frozen=True)
class EventHandlers:
    """Handlers of watch events. `listed` is set once all kinds have been listed."""

    store: Store
    gateways: Gateways | None  # None: they are not watched
    queue: WorkQueue
    policies: SignaturePolicies = field(default_factory=lambda: SignaturePolicies(""))
    label_selector: str = ""  # of the services; empty: all
    listed: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, body: Mapping[str, Any], *, is_deleted: bool = False) -> None:
        """Handle an event of a service, or of one of its objects."""
        generation = self._generation(body)
        key = self.store.discard(body) if is_deleted else self.store.put(body)
        if key is not None:
            cause = self._find_cause(body, generation)
            for affected in {key, owner_key(body) or key}:  # two if the label names another service now
                if kind_of(body) == ENDPOINT_SLICE:
                    self.queue.add_after(affected, SLICE_SECONDS)
                else:
                    self.queue.add(affected, cause)
        self._queue_affected()

    def handle_written(self, body: Mapping[str, Any]) -> None:
        """Handle the answer to a write of the operator, whose watch event will be no change.

        It has what other writers have changed meanwhile, too. A service is not queued for its status alone, which the
        operator wrote.
        """
        ref, before, generation = ref_of(body), None, self._generation(body)
        if ref.kind == INFERENCE_SERVICE and (key := owner_key(body)) is not None:
            before = _drop_status(self.store.get(key, ref))
        key = self.store.put_written(body)
        if key is not None and (before is None or before != _drop_status(self.store.get(key, ref))):
            cause = self._find_cause(body, generation)
            for affected in {key, owner_key(body) or key}:
                self.queue.add(affected, cause)

    def _generation(self, body: Mapping[str, Any]) -> int | None:
        """Return the known generation of the service of an object; None: it is not known."""
        key = owner_key(body)
        return self.store.generation(key) if key else None

    def _find_cause(self, body: Mapping[str, Any], before: int | None) -> Cause:
        """Return why the service of an object is queued.

        Args:
            body: the object, which is in the store.
            before: the generation of the service that was known before.
        """
        if self._generation(body) == before:
            return Cause.OTHER
        return Cause.CREATION if before is None else Cause.EDIT

    def handle_route(self, body: Mapping[str, Any], *, is_deleted: bool = False) -> None:
        """Handle an event of an HTTPRoute: that of a service, or one that may match requests of services.

        Routes are watched without a selector. To the store, one without the label of a service is deleted, as the
        objects of the other kinds are by their selector.
        """
        self.handle(body, is_deleted=is_deleted or names.LABEL_SERVICE not in labels_of(body))
        hostnames = self.store.routes.discard(body) if is_deleted else self.store.routes.put(body)
        self._queue_listed(self.store.hostnames.services(hostnames))

    def queue_all(self) -> None:
        """Queue all services."""
        self._queue_listed(self.store.services())

    def _queue_affected(self) -> None:
        """Queue the services whose routes match other requests since the last event."""
        if self.listed.is_set():
            self._queue_listed(self.store.hostnames.take_affected())

    def _queue_listed(self, keys: Iterable[ServiceKey]) -> None:
        """Queue services. Until all kinds have been listed, nothing is queued: the list queues every service."""
        for key in keys if self.listed.is_set() else ():
            self.queue.add(key)

    def handle_gateway(self, body: Mapping[str, Any], *, is_deleted: bool = False) -> None:
        """Handle an event of a Gateway or a GatewayClass."""
        if self.gateways is not None:
            self.queue_services_at(self.gateways.discard(body) if is_deleted else self.gateways.put(body))

    def queue_services_at(self, changed: frozenset[GatewayKey]) -> None:
        """Queue the services that name these Gateways."""
        if changed:
            self._queue_listed(self.store.services_at(changed))

    def handle_policy(self, body: Mapping[str, Any], *, is_deleted: bool = False) -> None:
        """Handle an event of a Namespace with the label of a signature policy, or of the ConfigMap of one."""
        self._queue_in(self.policies.discard(body) if is_deleted else self.policies.put(body))

    def _queue_in(self, namespaces: frozenset[str]) -> None:
        """Queue the services of namespaces."""
        if namespaces:
            self._queue_listed(key for key in self.store.services() if key.namespace in namespaces)

    def retain(self, kind: Kind, namespace: str, uids: frozenset[str], version: int | None) -> None:
        """Drop the objects of a kind that a list does not have.

        Args:
            kind: of the list.
            namespace: of the list; empty: all.
            uids: of the objects in the list.
            version: of the list; what is newer is not in it. None: the cluster does not serve the kind.
        """
        newest = sys.maxsize if version is None else version
        if kind in GATEWAYS:
            if self.gateways is not None:
                self.queue_services_at(self.gateways.retain(kind, uids, newest))
            return
        affected = self.store.retain(kind, namespace, uids, version)
        for key in affected:
            self.queue.add(key)
        self._queue_affected()
        if kind == HTTP_ROUTE:
            self._queue_listed(self.store.hostnames.services(self.store.routes.retain(namespace, uids, newest)))

    def build_informers(self, server: Server, kinds: Iterable[Kind], namespaces: Sequence[str]) -> list[Informer]:
        """Return the informers of some kinds; no namespaces means all. A Gateway may be in any namespace."""
        where = [(kind, each) for kind in kinds for each in (() if kind in GATEWAYS else namespaces) or ("",)]
        return [
            Informer(
                server,
                build_listing(kind, namespace, self.label_selector),
                self._cache(kind, namespace),
                installed=self.queue_all,
            )
            for kind, namespace in where
        ]

    def build_policy_informers(self, server: Server, namespaces: Sequence[str]) -> list[Informer]:
        """Return the informers of signature policies and of the Namespaces that name one; no namespaces means all."""

        def build(listing: Listing, name: str = "") -> Informer:
            def retain(uids: frozenset[str], version: int | None) -> None:
                self._queue_in(self.policies.retain(listing.kind, name, uids, version))

            return Informer(
                server, listing, Cache(self.handle_policy, partial(self.handle_policy, is_deleted=True), retain)
            )

        found = [build(list_labelled_namespaces(name), name) for name in namespaces or ("",)]
        if self.policies.home:
            found.append(build(Listing(CONFIG_MAP, self.policies.home, f"{LABEL_POLICY}={SIGNATURE_POLICY}")))
        return found

    def _cache(self, kind: Kind, namespace: str) -> Cache:
        handle = {HTTP_ROUTE: self.handle_route, **dict.fromkeys(GATEWAYS, self.handle_gateway)}.get(kind, self.handle)
        return Cache(handle, partial(handle, is_deleted=True), partial(self.retain, kind, namespace))


def list_labelled_namespaces(name: str = "") -> Listing:
    """Return the listing of the Namespaces that name a signature policy; with a name, of this one alone.

    An operator that serves some namespaces only may read these: RBAC compares the name of a field selector.
    """
    return Listing(NAMESPACE, labels=LABEL_SIGNATURE_POLICY, fields=f"metadata.name={name}" if name else "")


def build_listing(kind: Kind, namespace: str = "", label_selector: str = "") -> Listing:
    """Return which objects of a kind are watched: those with the label of a service, for most kinds.

    Args:
        kind: the kind.
        namespace: of the objects; empty: all.
        label_selector: of services; empty: all.
    """
    labels = "" if kind in UNSELECTED else names.LABEL_SERVICE
    labels = label_selector if kind == INFERENCE_SERVICE else labels
    return Listing(kind, namespace, labels, metadata_only=kind in METADATA_ONLY)


def _drop_status(body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return an object without its status."""
    return body and {field: value for field, value in body.items() if field != "status"}
