"""Cache of the Gateways that services refer to, and of their classes.

It is apart from the store, since no service owns them and their status changes with each route. It keeps the fields
that some package reads, so that other changes start no reconcile.
Sources: gateway-api.sigs.k8s.io, the pages of Gateway and GatewayClass, and GEP-2162 (supportedFeatures).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from conch.api.kinds import GATEWAY, GATEWAY_CLASS, GATEWAYS, Kind, kind_of
from conch.observe.fields import mapping, mappings, number, text


class GatewayKey(NamedTuple):
    """Namespace and name of a Gateway."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class SeenGateway:
    """The state of a Gateway that a service refers to."""

    present: bool = False  # it exists and is not terminating
    class_name: str = ""
    class_present: bool = False
    features: frozenset[str] | None = None  # that its class supports; None: the class lists none
    controller: str = ""  # spec.controllerName of its class, which is in the status of routes
    ports: Mapping[str, int] = field(default_factory=dict)  # by listener


SeenGateways = Mapping[GatewayKey, SeenGateway]

_ABSENT: Final = SeenGateway()
_NONE: Final[frozenset[GatewayKey]] = frozenset()


class _Read(NamedTuple):
    """The fields of a Gateway or of a GatewayClass; those of the other kind are empty."""

    class_name: str
    controller: str
    is_terminating: bool
    features: frozenset[str] | None
    ports: Mapping[str, int]


class _Entry(NamedTuple):
    uid: str
    version: int
    read: _Read


class Gateways:
    """Last seen Gateways and GatewayClasses. Methods that take a change return the Gateways whose state changed."""

    def __init__(self) -> None:
        # A class has no namespace; otherwise the two kinds are kept alike.
        self._seen: dict[Kind, dict[GatewayKey, _Entry]] = {kind: {} for kind in GATEWAYS}

    def put(self, body: Mapping[str, Any]) -> frozenset[GatewayKey]:
        """Add or replace an object of a watch event; versions older than the known one are ignored."""
        kind, key = kind_of(body), _key(body)
        meta, known = body["metadata"], self._seen[kind].get(key)
        entry = _Entry(meta["uid"], int(meta.get("resourceVersion") or 0), _read(body))
        if known is not None and entry.version < known.version:
            return _NONE
        self._seen[kind][key] = entry
        return self._concerned(kind, key) if known is None or known.read != entry.read else _NONE

    def discard(self, body: Mapping[str, Any]) -> frozenset[GatewayKey]:
        """Remove a deleted object, unless a new one with its name exists."""
        kind, key = kind_of(body), _key(body)
        known = self._seen[kind].get(key)
        return self._forget(kind, [key]) if known is not None and known.uid == body["metadata"]["uid"] else _NONE

    def retain(self, kind: Kind, uids: frozenset[str], version: int) -> frozenset[GatewayKey]:
        """Forget the objects of a kind that a list of this version does not have; what is newer is not in it."""
        seen = self._seen[kind].items()
        return self._forget(kind, [key for key, each in seen if each.uid not in uids and each.version <= version])

    def _forget(self, kind: Kind, keys: Iterable[GatewayKey]) -> frozenset[GatewayKey]:
        lost = [key for key in keys if self._seen[kind].pop(key, None) is not None]
        return frozenset(concerned for key in lost for concerned in self._concerned(kind, key))

    def find(self, keys: Iterable[GatewayKey]) -> dict[GatewayKey, SeenGateway]:
        """Return the states of Gateways in the order of `keys`, absent ones included."""
        return {key: self._find(key) for key in keys}

    def _find(self, key: GatewayKey) -> SeenGateway:
        gateway = self._seen[GATEWAY].get(key)
        if gateway is None or gateway.read.is_terminating:
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
        """Return the Gateways whose state depends on an object."""
        if kind == GATEWAY:
            return frozenset({key})
        return frozenset(each for each, entry in self._seen[GATEWAY].items() if entry.read.class_name == key.name)


def list_gateways(service: Mapping[str, Any]) -> tuple[GatewayKey, ...]:
    """Return the Gateways that the manifest of an InferenceService refers to.

    >>> traffic = {"gateways": [{"name": "public", "namespace": "infra"}, {"name": "own"}]}
    >>> [str(key) for key in list_gateways({"metadata": {"namespace": "demo"}, "spec": {"traffic": traffic}})]
    ['infra/public', 'demo/own']
    """
    own, traffic = service["metadata"]["namespace"], mapping(mapping(service.get("spec")).get("traffic"))
    references = mappings(traffic.get("gateways"))
    return tuple(GatewayKey(text(gateway.get("namespace")) or own, text(gateway.get("name"))) for gateway in references)


def unsupported(gateways: SeenGateways, feature: str) -> GatewayKey | None:
    """Return the first Gateway whose class lists features without a feature of the Gateway API; None: no such Gateway.

    >>> public, inner = GatewayKey("infra", "public"), GatewayKey("demo", "inner")
    >>> listed = SeenGateway(True, "a", True, frozenset({"HTTPRouteRequestTimeout"}))
    >>> unlisted = SeenGateway(True, "b", True, None)
    >>> str(unsupported({inner: unlisted, public: listed}, "HTTPRouteRequestMirror"))
    'infra/public'
    >>> unsupported({inner: unlisted, public: listed}, "HTTPRouteRequestTimeout")
    """
    for key, gateway in gateways.items():
        if gateway.features is not None and feature not in gateway.features:
            return key
    return None


def features_of(status: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the supported features of a GatewayClass; None: it lists none.

    >>> sorted(features_of({"supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}]}))
    ['Gateway', 'HTTPRoute']
    >>> sorted(features_of({"supportedFeatures": ["HTTPRoute"]}))  # the form of Gateway API 1.0 and 1.1
    ['HTTPRoute']
    >>> features_of({"supportedFeatures": []})
    >>> features_of({})
    """
    features = status.get("supportedFeatures") or ()
    return frozenset(one if isinstance(one, str) else one["name"] for one in features) or None


def _key(body: Mapping[str, Any]) -> GatewayKey:
    meta = body["metadata"]
    return GatewayKey(meta.get("namespace", ""), meta["name"])


def _read(body: Mapping[str, Any]) -> _Read:
    """Return the kept fields of a Gateway or of a GatewayClass."""
    is_terminating = "deletionTimestamp" in body["metadata"]
    spec, features = body["spec"], features_of(body.get("status") or {})
    ports = {text(each.get("name")): number(each.get("port")) for each in mappings(spec.get("listeners"))}
    return _Read(spec.get("gatewayClassName", ""), spec.get("controllerName", ""), is_terminating, features, ports)
