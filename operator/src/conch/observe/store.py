"""The store: the last seen state of all services and children, from watch events and from the operator's writes.

A reconcile reads its snapshot here, without calls to the API server. The store has no decisions.
It keeps objects as compressed JSON of the fields that some package reads: two thousand services with their children
need tens of megabytes, not hundreds. A reconcile unpacks the objects of its service.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from conch.api.kinds import (
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    REPLICA_SET,
    Kind,
    Ref,
    ServiceKey,
    kind_of,
    ref_of,
)
from conch.observe.cache_fields import keep_identity, trim
from conch.observe.entries import UNCOUNTED, Entry, Summary, is_whole_body, read_version, summarize, unpack
from conch.observe.fields import labels_of
from conch.observe.gateways import GatewayKey
from conch.observe.hostnames import Hostnames
from conch.observe.identity import controller_uid, controlling_service
from conch.observe.routes import ForeignRoutes
from conch.observe.tombstones import Tombstones
from conch_contract import names

# Limit of the kept objects of a namespace in bytes of JSON: a part for the namespace, and one for each of its services.
# A service with a hundred revisions has about one MiB. Of objects beyond it only the metadata is kept.
_NAMESPACE_BYTES: Final = 16 << 20
_SERVICE_BYTES: Final = 1 << 20
# Limit of the foreign objects of a namespace: those with the label of a service that does not own them. Others are not
# kept: before the operator creates an object, it reads the owner of that name from the API server.
_FOREIGN_OBJECTS: Final = 1000


class Store:
    """Last seen objects, by service. `put` and `discard` return the service whose snapshot changed, if one did."""

    def __init__(self, selects: Callable[[Mapping[str, str]], bool] | None = None) -> None:
        """Create the store.

        Args:
            selects: returns whether this installation serves a service with some labels; None: it serves all.
        """
        self._selects = selects
        self._objects: dict[ServiceKey, dict[Ref, Entry]] = defaultdict(dict)
        self._homes: dict[str, ServiceKey] = {}  # the service of each object, by uid
        self._sizes: Counter[str] = Counter()  # bytes of JSON that count, by namespace
        self._services: Counter[str] = Counter()  # by namespace
        self._foreign: Counter[str] = Counter()  # by namespace
        self._dead = Tombstones[int]()  # the last versions of deleted objects
        self._lists: dict[tuple[Kind, str], int] = {}  # versions of the last lists, by kind and namespace
        # The controllers of deleted ReplicaSets, whose pods end later.
        self.past_owners = Tombstones[str | None]()
        self._summaries: dict[ServiceKey, Summary] = {}
        self.hostnames = Hostnames()
        self.routes = ForeignRoutes()

    def put_written(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Add or replace an object of the response to a write.

        An unknown object that a newer list does not have is gone, and no event reports it: its service needs it again.
        """
        key, uid = owner_key(body), body["metadata"]["uid"]
        if key is not None and uid not in self._homes and uid not in self._dead.of(key.namespace):
            listed = max(self._lists.get((kind_of(body), place), -1) for place in ("", key.namespace))
            if int(body["metadata"]["resourceVersion"]) <= listed:
                self._dead.put(key.namespace, uid, listed)
                return key
        return self.put(body)

    def put(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Add or replace an object, of a watch event or of the response to a write.

        Versions older than the known one and deleted objects are ignored, since events may come late, twice or out of
        order. (`resourceVersion` is an integer that grows: KEP-5504, and all earlier API servers on etcd.)
        """
        key = owner_key(body)
        if key is None:
            return None
        meta, ref = body["metadata"], ref_of(body)
        if ref.kind == INFERENCE_SERVICE and self._selects is not None and not self._selects(labels_of(body)):
            return self.discard(body)  # the answer to a write may come before the event
        known, is_left_out = self._objects.get(key, {}).get(ref), self._leaves_out(key, ref)
        if self._is_outdated(key, ref, body, is_left_out=is_left_out):
            return None
        moved = self._leave(meta["uid"], ref, key)
        if known is None and not is_whole_body(body) and self._foreign[key.namespace] >= _FOREIGN_OBJECTS:
            del self._homes[meta["uid"]]
            return moved
        if known is not None and known.uid != meta["uid"]:
            self._homes.pop(known.uid, None)
        entry = self._pack(key, ref, body, known, is_left_out=is_left_out)
        changed = known is None or known.packed is not entry.packed
        self._take_out(key, ref)
        self._objects[key][ref] = entry
        self._sizes[key.namespace] += entry.size
        self._foreign[key.namespace] += entry.is_foreign
        if ref.kind == INFERENCE_SERVICE:
            self._services[key.namespace] += 1
            self._summaries[key] = summarize(body)
        elif ref == Ref(HTTP_ROUTE, key.name) and controlling_service(body) is not None:
            self.hostnames.put_route(key, body)
        elif ref == Ref(HTTP_ROUTE, key.name):  # no service owns it
            self.hostnames.discard_route(key)
        return moved or (key if changed and not is_left_out else None)

    def _is_outdated(self, key: ServiceKey, ref: Ref, body: Mapping[str, Any], *, is_left_out: bool) -> bool:
        """Return whether an object is gone, known already, or known in a later version."""
        uid, version = body["metadata"]["uid"], read_version(body)
        if version <= self._dead.of(key.namespace).get(uid, -1):
            return True
        if (known := self._objects.get(key, {}).get(ref)) is not None:
            is_partial = known.is_cut or (known.is_left_out and not is_left_out)
            if version < known.version or (known.uid == uid and version == known.version and not is_partial):
                return True
        elsewhere = self._objects.get(self._homes.get(uid, key), {}).get(ref)
        return elsewhere is not None and elsewhere.version > version  # it has moved to another service since

    def _leaves_out(self, key: ServiceKey, ref: Ref) -> bool:
        """Return whether another installation serves the service of an object, as far as this one knows."""
        if self._selects is None or ref.kind == INFERENCE_SERVICE:
            return False
        return Ref(INFERENCE_SERVICE, key.name) not in self._objects.get(key, {})

    def _pack(
        self, key: ServiceKey, ref: Ref, body: Mapping[str, Any], known: Entry | None, *, is_left_out: bool
    ) -> Entry:
        """Return the entry of an object that replaces a known one. It has the same bytes if the content is the same."""
        meta, counts = body["metadata"], ref.kind not in UNCOUNTED and not is_left_out
        is_whole = is_whole_body(body)
        content = msgspec.json.encode(trim(body) if is_whole and not is_left_out else keep_identity(body))
        most = _NAMESPACE_BYTES + _SERVICE_BYTES * self._services[key.namespace]
        freed = known.size if known is not None else 0
        is_cut = counts and self._sizes[key.namespace] - freed + len(content) > most
        if is_cut:
            content = msgspec.json.encode(keep_identity(body))
        # A third of the events change nothing of it. To compress takes four times as long as to compare.
        packed = known.packed if known is not None else b""
        if not packed or zlib.decompress(packed) != content:
            packed = zlib.compress(content, 1)
        size = len(content) if counts else 0
        return Entry(meta["uid"], read_version(body), packed, size, is_cut, not is_whole, is_left_out)

    def _take_out(self, key: ServiceKey, ref: Ref) -> Entry | None:
        """Remove an object from its service, and return its entry."""
        entry = self._objects.get(key, {}).pop(ref, None)
        if entry is not None:
            self._sizes[key.namespace] -= entry.size
            self._foreign[key.namespace] -= entry.is_foreign
            if ref.kind == INFERENCE_SERVICE:
                self._services[key.namespace] -= 1
                self._summaries.pop(key, None)
        return entry

    def _drop(self, key: ServiceKey, ref: Ref) -> Entry | None:
        """Remove a deleted object, and return its entry."""
        entry = self._take_out(key, ref)
        if entry is not None and ref.kind == REPLICA_SET:
            self.past_owners.put(key.namespace, entry.uid, controller_uid(unpack(entry)))
        if ref == Ref(HTTP_ROUTE, key.name):
            self.hostnames.discard_route(key)
        if entry is not None and ref.kind == INFERENCE_SERVICE:
            self._leave_out(key)
        if not self._objects.get(key):
            self._objects.pop(key, None)
        return entry

    def _leave_out(self, key: ServiceKey) -> None:
        """Keep only the metadata of the objects of a service that this installation serves no longer."""
        for ref, entry in list(self._objects.get(key, {}).items()):
            if self._leaves_out(key, ref) and not entry.is_left_out:
                packed = zlib.compress(msgspec.json.encode(keep_identity(unpack(entry))), 1)
                self._sizes[key.namespace] -= entry.size
                self._objects[key][ref] = entry._replace(packed=packed, size=0, is_cut=False, is_left_out=True)

    def _leave(self, uid: str, ref: Ref, key: ServiceKey) -> ServiceKey | None:
        """Remove an object from its former service, if its label has another one, and return the former service."""
        before, self._homes[uid] = self._homes.get(uid, key), key
        return before if before != key and self._drop(before, ref) is not None else None

    def discard(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Remove a deleted object, unless a new one with its name exists.

        A watch reports an object without the label as deleted too, and with the label again in a later version. Its
        service is the one that had it, whatever its labels are now.
        """
        uid = body["metadata"]["uid"]
        key = self._homes.pop(uid, None) or owner_key(body)
        if key is None:
            return None
        version, ref = read_version(body), ref_of(body)
        known = self._objects.get(key, {}).get(ref)
        if known is not None and known.uid == uid and known.version > version:
            self._homes[uid] = key
            return None  # its label was removed and added again
        # The answer to a write may have been the later one.
        self._dead.put(key.namespace, uid, max(version, self._dead.of(key.namespace).get(uid, -1)))
        if known is None or known.uid != uid:
            return None
        self._drop(key, ref)
        return key

    def retain(self, kind: Kind, namespace: str, uids: frozenset[str], version: int | None) -> set[ServiceKey]:
        """Remove the objects of a kind that a list does not have, and return their services.

        Args:
            kind: of the list.
            namespace: of the list; empty: all.
            uids: of the objects in the list.
            version: of the list; newer objects are not in it. None: there is no list, because the cluster does not
            serve the kind. When it serves the kind again, the same objects may exist, in the same versions.
        """
        changed: set[ServiceKey] = set()
        self._lists[kind, namespace] = -1 if version is None else version
        for key in [key for key in self._objects if namespace in {"", key.namespace}]:
            for ref, entry in list(self._objects[key].items()):
                if ref.kind != kind or entry.uid in uids or (version is not None and entry.version > version):
                    continue
                self._homes.pop(entry.uid, None)
                if version is not None:
                    self._dead.put(key.namespace, entry.uid, version)
                changed.add(key)
                self._drop(key, ref)
        return changed

    def services(self) -> Iterator[ServiceKey]:
        """Return the known services, with or without children."""
        return (key for key, snapshot in self._objects.items() if Ref(INFERENCE_SERVICE, key.name) in snapshot)

    def services_at(self, gateways: frozenset[GatewayKey]) -> list[ServiceKey]:
        """Return the services that refer to any of these Gateways."""
        return [key for key, summary in self._summaries.items() if not gateways.isdisjoint(summary.gateways)]

    def generation(self, key: ServiceKey) -> int | None:
        """Return the generation of a service, which changes with its spec; None: it is not known."""
        summary = self._summaries.get(key)
        return summary.generation if summary else None

    def readiness(self) -> Counter[str]:
        """Return the number of services by the status of their Ready condition."""
        return Counter(summary.ready for summary in self._summaries.values())

    def objects(self, key: ServiceKey) -> dict[Ref, dict[str, Any]]:
        """Return the objects of a service: itself, its children and its pods."""
        return {ref: unpack(entry) for ref, entry in self._objects.get(key, {}).items()}

    def cut(self, key: ServiceKey) -> list[Ref]:
        """Return the objects of a service that are beyond the limit, so that only their metadata is kept."""
        return sorted(ref for ref, entry in self._objects.get(key, {}).items() if entry.is_cut)

    def left_out(self, key: ServiceKey) -> dict[Kind, set[str]]:
        """Return the kinds of which objects have to be listed: another installation has served the service.

        Returns:
            By kind the values of the label of a service that these objects have. It may have another value than the
            name of the service that owns the object.
        """
        found: dict[Kind, set[str]] = {}
        for ref, entry in self._objects.get(key, {}).items() if self._selects is not None else ():
            if entry.is_left_out:
                found.setdefault(ref.kind, set()).add(labels_of(unpack(entry)).get(names.LABEL_SERVICE, ""))
        return found

    def version(self, key: ServiceKey, ref: Ref) -> int:
        """Return the last seen resourceVersion of an object; 0: it is not known."""
        entry = self._objects.get(key, {}).get(ref)
        return entry.version if entry else 0

    def get(self, key: ServiceKey, ref: Ref) -> dict[str, Any] | None:
        """Return an object of a service; None: it is not known."""
        entry = self._objects.get(key, {}).get(ref)
        return unpack(entry) if entry else None


def owner_key(body: Mapping[str, Any]) -> ServiceKey | None:
    """Return the service to whose snapshot an object belongs; None: no service.

    It is the service itself, the controller, or the service of the label for objects of other controllers.
    """
    meta = body["metadata"]
    labels = meta.get("labels") or {}
    if kind_of(body) == INFERENCE_SERVICE:
        return ServiceKey(meta["namespace"], meta["name"])
    service = controlling_service(body) or labels.get(names.LABEL_SERVICE)
    return ServiceKey(meta["namespace"], service) if service else None
