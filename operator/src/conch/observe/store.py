"""The store: the last seen state of every service and child, fed by watch events and by our own writes.

Why: a reconcile must see its whole snapshot without asking the API server. What may not enter: decisions.
Bodies are kept as compressed JSON, trimmed of what nobody reads: two thousand services with all their
children are then tens of megabytes, not hundreds; one service is unpacked when it is looked at.
"""

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from conch.api.kinds import (
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    REPLICA_SET,
    Kind,
    Ref,
    ServiceKey,
    kind_of,
    ref_of,
)
from conch.observe.cache_fields import stub, trim
from conch.observe.fields import labels_of, mapping, mappings, text
from conch.observe.gateways import GatewayKey, named_gateways
from conch.observe.hostnames import Hostnames
from conch.observe.identity import controller_uid, controlling_service, is_orphan
from conch.observe.routes import ForeignRoutes
from conch.observe.tombstones import Tombstones
from conch_contract import names

# What is kept of the objects of a namespace, as bytes of JSON: so much, and so much more for each of its services. A
# service with a hundred revisions has about one MiB. Of what comes beyond it, only the metadata is kept.
_NAMESPACE_BYTES: Final = 16 << 20
_SERVICE_BYTES: Final = 1 << 20
# Objects of a namespace that have the label of a service and are not its own. Beyond it they are not kept: before a
# name is taken, the API server is asked whose it is.
_FOREIGN_OBJECTS: Final = 1000
# What the controllers of Kubernetes make does not count: little of each object is kept anyway.
_UNCOUNTED: Final = frozenset({INFERENCE_SERVICE, REPLICA_SET, POD, ENDPOINT_SLICE})


class _Entry(NamedTuple):
    uid: str
    version: int
    packed: bytes
    size: int  # bytes of JSON that count
    is_cut: bool  # for want of space, only its metadata is kept
    is_foreign: bool  # it has the label of a service, and is not its own


class _Summary(NamedTuple):
    """What is read of all services at once: a service is unpacked only for a reconcile."""

    ready: str  # status of the condition Ready
    gateways: frozenset[GatewayKey]


class Store:
    """Last seen objects, by service. `put` and `discard` answer whose snapshot changed, if anybody's."""

    def __init__(self) -> None:
        self._objects: dict[ServiceKey, dict[Ref, _Entry]] = defaultdict(dict)
        self._homes: dict[str, ServiceKey] = {}  # the service of each object, by uid
        self._sizes: Counter[str] = Counter()  # bytes of JSON that count, by namespace
        self._services: Counter[str] = Counter()  # by namespace
        self._foreign: Counter[str] = Counter()  # by namespace
        self._dead = Tombstones[int]()  # the last version of what was deleted
        # The controllers of ReplicaSets that are gone: their pods go later than they do.
        self.past_owners = Tombstones[str | None]()
        self._summaries: dict[ServiceKey, _Summary] = {}
        self.hostnames = Hostnames()
        self.routes = ForeignRoutes()

    def put(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Take in an object, from a watch event or from the answer to a write.

        Older versions than the known one, and objects known to be deleted, are passed over:
        events may come late, twice or out of order. (`resourceVersion` is an integer that grows:
        KEP-5504, and true of every API server on etcd before it.)
        """
        key = owner_key(body)
        if key is None:
            return None
        meta = body["metadata"]
        ref = ref_of(body)
        version = int(meta.get("resourceVersion") or 0)
        known = self._objects.get(key, {}).get(ref)
        died = self._dead.of(key.namespace).get(meta["uid"], -1)
        if version <= died or (known is not None and version < known.version):
            return None
        if known is not None and known.uid == meta["uid"] and version == known.version and not known.is_cut:
            return None
        if (
            elsewhere := self._objects.get(self._homes.get(meta["uid"], key), {}).get(ref)
        ) and elsewhere.version > version:
            return None  # it has moved to another service since
        moved = self._leave(meta["uid"], ref, key)
        if known is None and not _is_whole(body) and self._foreign[key.namespace] >= _FOREIGN_OBJECTS:
            del self._homes[meta["uid"]]
            return moved
        if known is not None and known.uid != meta["uid"]:
            self._homes.pop(known.uid, None)
        entry = self._pack(key, ref, body, known.size if known is not None else 0)
        changed = known is None or known.packed != entry.packed
        self._take_out(key, ref)
        self._objects[key][ref] = entry
        self._sizes[key.namespace] += entry.size
        self._foreign[key.namespace] += entry.is_foreign
        if ref.kind == INFERENCE_SERVICE:
            self._services[key.namespace] += 1
            self._summaries[key] = _summarize(body)
        elif ref == Ref(HTTP_ROUTE, key.name) and controlling_service(body) is not None:
            self.hostnames.put_route(key, body)
        elif ref == Ref(HTTP_ROUTE, key.name):  # it belongs to no service any more, or has never
            self.hostnames.discard_route(key)
        return moved or (key if changed else None)

    def _pack(self, key: ServiceKey, ref: Ref, body: Mapping[str, Any], freed: int) -> _Entry:
        """Return what is kept of an object, in the place of one whose bytes are freed."""
        meta, counts = body["metadata"], ref.kind not in _UNCOUNTED
        is_whole = _is_whole(body)
        kept = _to_json(trim(body) if is_whole else stub(body))
        most = _NAMESPACE_BYTES + _SERVICE_BYTES * self._services[key.namespace]
        is_cut = counts and self._sizes[key.namespace] - freed + len(kept) > most
        if is_cut:
            kept = _to_json(stub(body))
        packed = zlib.compress(kept.encode(), 1)
        size = len(kept) if counts else 0
        return _Entry(meta["uid"], int(meta.get("resourceVersion") or 0), packed, size, is_cut, not is_whole)

    def _take_out(self, key: ServiceKey, ref: Ref) -> _Entry | None:
        """Take an object out of its service; return what was kept of it."""
        entry = self._objects.get(key, {}).pop(ref, None)
        if entry is not None:
            self._sizes[key.namespace] -= entry.size
            self._foreign[key.namespace] -= entry.is_foreign
            if ref.kind == INFERENCE_SERVICE:
                self._services[key.namespace] -= 1
                self._summaries.pop(key, None)
        return entry

    def _drop(self, key: ServiceKey, ref: Ref) -> _Entry | None:
        """Forget an object that is gone; return what was kept of it."""
        entry = self._take_out(key, ref)
        if entry is not None and ref.kind == REPLICA_SET:
            self.past_owners.put(key.namespace, entry.uid, controller_uid(_unpack(entry)))
        if ref == Ref(HTTP_ROUTE, key.name):
            self.hostnames.discard_route(key)
        if not self._objects.get(key):
            self._objects.pop(key, None)
        return entry

    def _leave(self, uid: str, ref: Ref, key: ServiceKey) -> ServiceKey | None:
        """Forget an object where it was, when its label names another service; return the service that it left."""
        before, self._homes[uid] = self._homes.get(uid, key), key
        return before if before != key and self._drop(before, ref) is not None else None

    def discard(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Forget a deleted object, unless another of its name has taken its place already.

        An object whose label was removed is reported as deleted too, and is there again in a later version. It belongs
        to the service where it was, whatever it says now.
        """
        uid = body["metadata"]["uid"]
        key = self._homes.pop(uid, None) or owner_key(body)
        if key is None:
            return None
        version = int(body["metadata"].get("resourceVersion") or 0)
        ref = ref_of(body)
        known = self._objects.get(key, {}).get(ref)
        if known is not None and known.uid == uid and known.version > version:
            self._homes[uid] = key
            return None  # it lost the label, and has it again
        self._dead.put(key.namespace, uid, version)
        if known is None or known.uid != uid:
            return None
        self._drop(key, ref)
        return key

    def retain(self, kind: Kind, namespace: str, uids: frozenset[str], version: int | None) -> set[ServiceKey]:
        """Forget the objects of a kind that a list does not have; return the services to which they belonged.

        Args:
            kind: of the list.
            namespace: of the list; empty: all.
            uids: of the objects in the list.
            version: of the list; what is newer is not in it. None: there is no list, because the cluster does not
                serve the kind. When it does again, the same objects may be there, in the same versions.
        """
        changed: set[ServiceKey] = set()
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
        """All services that are known, with or without children."""
        return (key for key, snapshot in self._objects.items() if Ref(INFERENCE_SERVICE, key.name) in snapshot)

    def services_at(self, gateways: frozenset[GatewayKey]) -> list[ServiceKey]:
        """Return the services that name any of these Gateways."""
        return [key for key, summary in self._summaries.items() if not gateways.isdisjoint(summary.gateways)]

    def readiness(self) -> Counter[str]:
        """Return how many services there are, by the status of their Ready condition."""
        return Counter(summary.ready for summary in self._summaries.values())

    def objects(self, key: ServiceKey) -> dict[Ref, dict[str, Any]]:
        """Unpack all that is known of a service: itself, its children and its pods."""
        return {ref: _unpack(entry) for ref, entry in self._objects.get(key, {}).items()}

    def cut(self, key: ServiceKey) -> list[Ref]:
        """Return the objects of a service of which, for want of space, only the metadata is kept."""
        return sorted(ref for ref, entry in self._objects.get(key, {}).items() if entry.is_cut)

    def version(self, key: ServiceKey, ref: Ref) -> int:
        """Return the resourceVersion of an object as last seen; 0 if it is not known."""
        entry = self._objects.get(key, {}).get(ref)
        return entry.version if entry else 0

    def get(self, key: ServiceKey, ref: Ref) -> dict[str, Any] | None:
        """Unpack one object of a service's snapshot."""
        entry = self._objects.get(key, {}).get(ref)
        return _unpack(entry) if entry else None


def owner_key(body: Mapping[str, Any]) -> ServiceKey | None:
    """Return the service to whose snapshot an object belongs; None: nobody's.

    It is the service itself, its controller, or for what others make of its children the service that the label names.
    """
    meta = body["metadata"]
    labels = meta.get("labels") or {}
    if kind_of(body) == INFERENCE_SERVICE:
        return ServiceKey(meta["namespace"], meta["name"])
    service = controlling_service(body) or labels.get(names.LABEL_SERVICE)
    return ServiceKey(meta["namespace"], service) if service else None


def _is_whole(body: Mapping[str, Any]) -> bool:
    """Whether more than the metadata of an object is read.

    A user may write the label of a service. What the service neither controls nor has left behind is not its own: that
    an object has the name, and whose it is, is all that a decision depends on.
    """
    service = labels_of(body).get(names.LABEL_SERVICE, "")
    mine = controlling_service(body) is not None or is_orphan(body, service)
    return kind_of(body) in _UNCOUNTED or mine


def _summarize(service: Mapping[str, Any]) -> _Summary:
    conditions = mappings(mapping(service.get("status")).get("conditions"))
    ready = next((text(each.get("status")) for each in conditions if each.get("type") == "Ready"), "Unknown")
    return _Summary(ready, frozenset(named_gateways(service)))


def _unpack(entry: _Entry) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(zlib.decompress(entry.packed))
    return body


def _to_json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))
