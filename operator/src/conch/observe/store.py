"""The store: the last seen state of every service and child, fed by watch events and by our own writes.

Why: a reconcile must see its whole world without asking the API server. What may not enter: decisions.
Bodies are kept as compressed JSON, trimmed of what nobody reads: two thousand services with all their
children are then tens of megabytes, not hundreds; one service is unpacked when it is looked at.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from conch.api.kinds import INFERENCE_SERVICE, Kind, Ref, ServiceKey, kind_of, ref_of
from conch.observe.hostnames import Hostnames
from conch.observe.identity import controlling_service
from conch.observe.routes import ForeignRoutes
from conch.observe.trim import trim
from conch_contract import names

# How long a deletion is remembered, in entries: late events of the dead must not bring them back.
_TOMBSTONES: Final = 4096


class _Entry(NamedTuple):
    uid: str
    version: int
    packed: bytes


class Store:
    """Last seen objects, by service. `put` and `discard` answer whose world changed, if anybody's."""

    def __init__(self) -> None:
        self._worlds: dict[ServiceKey, dict[Ref, _Entry]] = defaultdict(dict)
        self._homes: dict[str, ServiceKey] = {}  # the service of each object, by uid
        self._dead: dict[str, int] = {}  # the last version of what was deleted, by uid
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
        known = self._worlds[key].get(ref)
        if version <= self._dead.get(meta["uid"], -1) or (known is not None and version < known.version):
            return None
        if known is not None and known.uid == meta["uid"] and version == known.version:
            return None
        moved = self._leave(meta["uid"], ref, key)
        packed = zlib.compress(json.dumps(trim(body), separators=(",", ":")).encode(), 1)
        changed = known is None or known.packed != packed
        self._worlds[key][ref] = _Entry(meta["uid"], version, packed)
        if ref.kind == INFERENCE_SERVICE:
            self.hostnames.put(key, body)
        return moved or (key if changed else None)

    def _leave(self, uid: str, ref: Ref, key: ServiceKey) -> ServiceKey | None:
        """Forget an object where it was, when its label names another service; return the service that it left."""
        before, self._homes[uid] = self._homes.get(uid, key), key
        if before == key or self._worlds[before].pop(ref, None) is None:
            return None
        return before

    def discard(self, body: Mapping[str, Any]) -> ServiceKey | None:
        """Forget a deleted object, unless another of its name has taken its place already.

        An object whose label was removed is reported as deleted too, and is there again in a later version. It belongs
        to the service where it was, whatever it says now.
        """
        uid = body["metadata"]["uid"]
        key = self._homes.pop(uid, None) or owner_key(body)
        if key is None:
            return None
        self._dead[uid] = int(body["metadata"].get("resourceVersion") or 0)
        while len(self._dead) > _TOMBSTONES:
            del self._dead[next(iter(self._dead))]
        ref = ref_of(body)
        known = self._worlds[key].get(ref)
        if known is None or known.uid != uid:
            return None
        del self._worlds[key][ref]
        if ref.kind == INFERENCE_SERVICE:
            self.hostnames.discard(key)
        if not self._worlds[key]:
            del self._worlds[key]
        return key

    def uids(self, kind: Kind) -> frozenset[str]:
        """The uids of the objects of a kind that are known."""
        worlds = self._worlds.values()
        return frozenset(entry.uid for world in worlds for ref, entry in world.items() if ref.kind == kind)

    def evict(self, kind: Kind, gone: frozenset[str]) -> set[ServiceKey]:
        """Forget the objects of a kind that have these uids; return whose worlds changed.

        For after a lost watch: deletions that fell into the gap are never told.
        """
        changed: set[ServiceKey] = set()
        for key, world in list(self._worlds.items()):
            for ref in [r for r, e in world.items() if r.kind == kind and e.uid in gone]:
                entry = world.pop(ref)
                self._homes.pop(entry.uid, None)
                self._dead[entry.uid] = entry.version
                changed.add(key)
                if kind == INFERENCE_SERVICE:
                    self.hostnames.discard(key)
        return changed

    def services(self) -> Iterator[ServiceKey]:
        """All services that are known, with or without children."""
        return (key for key, world in self._worlds.items() if Ref(INFERENCE_SERVICE, key.name) in world)

    def objects(self, key: ServiceKey) -> dict[Ref, dict[str, Any]]:
        """Unpack all that is known of a service: itself, its children and its pods."""
        return {ref: json.loads(zlib.decompress(entry.packed)) for ref, entry in self._worlds.get(key, {}).items()}

    def version(self, key: ServiceKey, ref: Ref) -> int:
        """Return the resourceVersion of an object as last seen; 0 if it is not known."""
        entry = self._worlds.get(key, {}).get(ref)
        return entry.version if entry else 0

    def get(self, key: ServiceKey, ref: Ref) -> dict[str, Any] | None:
        """Unpack one object of a service's world."""
        entry = self._worlds.get(key, {}).get(ref)
        return json.loads(zlib.decompress(entry.packed)) if entry else None


def owner_key(body: Mapping[str, Any]) -> ServiceKey | None:
    """Return the service to whose world an object belongs; None: nobody's.

    It is the service itself, its controller, or for what others make of its children the service that the label names.
    """
    meta = body["metadata"]
    labels = meta.get("labels") or {}
    if kind_of(body) == INFERENCE_SERVICE:
        return ServiceKey(meta["namespace"], meta["name"])
    service = controlling_service(body) or labels.get(names.LABEL_SERVICE)
    return ServiceKey(meta["namespace"], service) if service else None
