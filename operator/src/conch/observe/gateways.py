"""The Gateways that services name, and their classes, as they were last seen.

Why apart from the store: they are nobody's children, and their status changes with every route that comes or goes.
Only what some room reads is kept, so that nobody is woken for the rest.
Sources: gateway-api.sigs.k8s.io, the pages of Gateway and GatewayClass, and GEP-2162 (supportedFeatures).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from conch.api.kinds import GATEWAY, GATEWAY_CLASS, GATEWAYS, Kind, kind_of
from conch.observe.fields import mapping, mappings, number, text


class GatewayKey(NamedTuple):
    """Names one Gateway of the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class SeenGateway:
    """What is known of a Gateway that a service names."""

    present: bool = False  # it is there, and not on its way out
    class_name: str = ""
    class_present: bool = False
    features: frozenset[str] | None = None  # that its class says it supports; None: it does not tell
    controller: str = ""  # spec.controllerName of its class: who answers for it in a route's status
    ports: Mapping[str, int] = field(default_factory=dict)  # by listener


SeenGateways = Mapping[GatewayKey, SeenGateway]

_ABSENT: Final = SeenGateway()
_NOBODY: Final[frozenset[GatewayKey]] = frozenset()


class _Read(NamedTuple):
    """What is read of a Gateway or of a GatewayClass; each lacks what the other has."""

    class_name: str
    controller: str
    leaving: bool
    features: frozenset[str] | None
    ports: Mapping[str, int]


class _Entry(NamedTuple):
    uid: str
    version: int
    read: _Read


class Gateways:
    """Last seen Gateways and GatewayClasses. What takes in a change answers which Gateways look different by it."""

    def __init__(self) -> None:
        # A class is of no namespace; otherwise the two kinds are kept alike.
        self._seen: dict[Kind, dict[GatewayKey, _Entry]] = {kind: {} for kind in GATEWAYS}

    def put(self, body: Mapping[str, Any]) -> frozenset[GatewayKey]:
        """Take in an object from a watch event; older versions than the known one are passed over."""
        kind, key = kind_of(body), _key(body)
        meta, known = body["metadata"], self._seen[kind].get(key)
        entry = _Entry(meta["uid"], int(meta.get("resourceVersion") or 0), _read(body))
        if known is not None and entry.version < known.version:
            return _NOBODY
        self._seen[kind][key] = entry
        return self._concerned(kind, key) if known is None or known.read != entry.read else _NOBODY

    def discard(self, body: Mapping[str, Any]) -> frozenset[GatewayKey]:
        """Forget a deleted object, unless another of its name has taken its place already."""
        kind, key = kind_of(body), _key(body)
        known = self._seen[kind].get(key)
        return self._forget(kind, [key]) if known is not None and known.uid == body["metadata"]["uid"] else _NOBODY

    def retain(self, kind: Kind, uids: frozenset[str], version: int) -> frozenset[GatewayKey]:
        """Forget the objects of a kind that a list of this version does not have; what is newer is not in it."""
        seen = self._seen[kind].items()
        return self._forget(kind, [key for key, each in seen if each.uid not in uids and each.version <= version])

    def _forget(self, kind: Kind, keys: Iterable[GatewayKey]) -> frozenset[GatewayKey]:
        lost = [key for key in keys if self._seen[kind].pop(key, None) is not None]
        return frozenset(concerned for key in lost for concerned in self._concerned(kind, key))

    def look(self, keys: Iterable[GatewayKey]) -> dict[GatewayKey, SeenGateway]:
        """Return what is known of some Gateways, in their order: those that are not there too."""
        return {key: self._look(key) for key in keys}

    def _look(self, key: GatewayKey) -> SeenGateway:
        gateway = self._seen[GATEWAY].get(key)
        if gateway is None or gateway.read.leaving:
            return _ABSENT
        found = self._seen[GATEWAY_CLASS].get(GatewayKey("", gateway.read.class_name))
        return SeenGateway(
            present=True,
            class_name=gateway.read.class_name,
            class_present=found is not None,
            controller=found.read.controller if found else "",
            features=found.read.features if found else None,
            ports=gateway.read.ports,
        )

    def _concerned(self, kind: Kind, key: GatewayKey) -> frozenset[GatewayKey]:
        """The Gateways that look different when this object does."""
        if kind == GATEWAY:
            return frozenset({key})
        return frozenset(each for each, entry in self._seen[GATEWAY].items() if entry.read.class_name == key.name)


def named_gateways(service: Mapping[str, Any]) -> tuple[GatewayKey, ...]:
    """Return the Gateways that an InferenceService names, as its manifest is spelled.

    >>> traffic = {"gateways": [{"name": "public", "namespace": "infra"}, {"name": "own"}]}
    >>> [str(key) for key in named_gateways({"metadata": {"namespace": "demo"}, "spec": {"traffic": traffic}})]
    ['infra/public', 'demo/own']
    """
    own, traffic = service["metadata"]["namespace"], mapping(mapping(service.get("spec")).get("traffic"))
    named = mappings(traffic.get("gateways"))
    return tuple(GatewayKey(text(gateway.get("namespace")) or own, text(gateway.get("name"))) for gateway in named)


def unsupported(gateways: SeenGateways, feature: str) -> GatewayKey | None:
    """Return the first Gateway that is known not to support a feature of the Gateway API; None if there is none.

    >>> public, inner = GatewayKey("infra", "public"), GatewayKey("demo", "inner")
    >>> tells = SeenGateway(True, "a", True, frozenset({"HTTPRouteRequestTimeout"}))
    >>> silent = SeenGateway(True, "b", True, None)
    >>> str(unsupported({inner: silent, public: tells}, "HTTPRouteRequestMirror"))
    'infra/public'
    >>> unsupported({inner: silent, public: tells}, "HTTPRouteRequestTimeout")
    """
    for key, gateway in gateways.items():
        if gateway.features is not None and feature not in gateway.features:
            return key
    return None


def features_of(status: Mapping[str, Any]) -> frozenset[str] | None:
    """Return what a GatewayClass says that it supports; None if it says nothing, for an empty list tells nothing.

    >>> sorted(features_of({"supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}]}))
    ['Gateway', 'HTTPRoute']
    >>> sorted(features_of({"supportedFeatures": ["HTTPRoute"]}))  # as Gateway API 1.0 and 1.1 spelled it
    ['HTTPRoute']
    >>> features_of({"supportedFeatures": []})
    >>> features_of({})
    """
    said = status.get("supportedFeatures") or ()
    return frozenset(one if isinstance(one, str) else one["name"] for one in said) or None


def _key(body: Mapping[str, Any]) -> GatewayKey:
    meta = body["metadata"]
    return GatewayKey(meta.get("namespace", ""), meta["name"])


def _read(body: Mapping[str, Any]) -> _Read:
    """Return what is worth keeping of a Gateway, or of a GatewayClass."""
    leaving = "deletionTimestamp" in body["metadata"]
    spec, features = body["spec"], features_of(body.get("status") or {})
    ports = {text(each.get("name")): number(each.get("port")) for each in mappings(spec.get("listeners"))}
    return _Read(spec.get("gatewayClassName", ""), spec.get("controllerName", ""), leaving, features, ports)
