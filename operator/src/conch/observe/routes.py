"""Cache of the HTTPRoutes that no InferenceService controls and that take requests of a service.

A value of an unexpected type is read as absent. The cache excludes routes that no Gateway has accepted; matches by
regular expression, whose precedence depends on the gateway; and matches with headers, a method or query parameters,
which refine those of the service on purpose. Hostnames are compared exactly: a more specific one under a wildcard of
the service is deliberate too, and a wildcard over the service's hostname never wins.
Source: gateway-api.sigs.k8s.io, HTTPRouteSpec, ParentReference and HTTPRouteRule.matches (of two matches the exact path
wins, then the longer path, the older route, and the name that comes first).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from conch.api.kinds import GATEWAY
from conch.api.names import GRPC_PATHS, HTTP_PATHS, MODELS_PATH
from conch.observe.fields import mapping, mappings, number, text
from conch.observe.gateways import GatewayKey, SeenGateway
from conch.observe.identity import controlling_service

_PATHS: Final = (*HTTP_PATHS, *GRPC_PATHS)
_NONE: Final[frozenset[str]] = frozenset()


class Attachment(NamedTuple):
    """A Gateway that has accepted a route, or the listeners of it that the route refers to."""

    gateway: GatewayKey
    section: str  # the listener's name; empty: any
    port: int  # of the listeners; 0: any


class PathMatch(NamedTuple):
    """A match of a route by path only."""

    path: str
    is_exact: bool  # false: a prefix
    service_path: str  # the path of all services that equals it or contains it


class Age(NamedTuple):
    """The precedence of routes with equal matches at a gateway: the smallest one first."""

    created: str  # RFC 3339, UTC, seconds
    route: str  # namespace/name


@dataclass(frozen=True)
class Route:
    """The parts of an HTTPRoute that decide on the backend of a request."""

    age: Age
    attachments: frozenset[Attachment]
    hostnames: frozenset[str]
    matches: tuple[PathMatch, ...]  # of all its rules


class Precedence(StrEnum):
    """The criterion by which a match wins: the first one in which two matches differ. Messages end with the value."""

    EXACT = "its path is exact"
    PATH = "its path is longer"
    AGE = "its route is older"
    NAME = "its route is as old, and its name comes first"


@dataclass(frozen=True)
class RouteConflict:
    """A match of another route that takes requests of a service."""

    route: str  # namespace/name
    gateway: GatewayKey
    hostname: str
    match: PathMatch
    precedence: Precedence


class _Entry(NamedTuple):
    namespace: str
    version: int
    route: Route


class ForeignRoutes:
    """Last seen routes that no InferenceService controls. Methods that take a change return its hostnames."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # by uid; few, for few routes have a path of a service

    def put(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Add or replace a route of a watch event; versions older than the known one are ignored."""
        meta = body["metadata"]
        uid, version = meta["uid"], number(meta.get("resourceVersion"))
        known = self._entries.get(uid)
        if known is not None and version < known.version:
            return _NONE
        route = None if controlling_service(body) else read_route(body)
        before = self.discard(body)
        if route is None:
            return before
        self._entries[uid] = _Entry(text(meta.get("namespace")), version, route)
        return before | route.hostnames if known is None or known.route != route else _NONE

    def discard(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Remove a deleted route."""
        return self._forget([body["metadata"]["uid"]])

    def retain(self, namespace: str, uids: frozenset[str], version: int) -> frozenset[str]:
        """Remove the routes that a list does not have: of a namespace, or of all if it is empty.

        Args:
            namespace: of the list.
            uids: of the routes in the list.
            version: of the list; what is newer is not in it.
        """
        kept = self._entries.items()
        listed = [(uid, each) for uid, each in kept if namespace in {"", each.namespace} and each.version <= version]
        return self._forget([uid for uid, _ in listed if uid not in uids])

    def _forget(self, uids: Iterable[str]) -> frozenset[str]:
        lost = [entry for uid in uids if (entry := self._entries.pop(uid, None)) is not None]
        return _NONE.union(*(entry.route.hostnames for entry in lost))

    def at(self, hostnames: Sequence[str]) -> list[Route]:
        """Return the routes with any of these hostnames, the oldest first."""
        routes = (entry.route for entry in self._entries.values())
        return sorted((each for each in routes if not each.hostnames.isdisjoint(hostnames)), key=lambda each: each.age)


def read_age(body: Mapping[str, Any]) -> Age:
    """Read the creation and the name of a route, whole or trimmed."""
    meta = mapping(body.get("metadata"))
    return Age(text(meta.get("creationTimestamp")), f"{text(meta.get('namespace'))}/{text(meta.get('name'))}")


def read_route(body: Mapping[str, Any]) -> Route | None:
    """Read an HTTPRoute, whole or trimmed; None: it takes no request of any service."""
    spec = mapping(body.get("spec"))
    names = spec.get("hostnames")
    hostnames = frozenset(text(name).lower() for name in names) - {""} if isinstance(names, list | tuple) else _NONE
    attachments, matches = frozenset(read_attachments(body)), tuple(dict.fromkeys(_read_matches(spec)))
    return Route(read_age(body), attachments, hostnames, matches) if hostnames and attachments and matches else None


def find_route_conflict(
    route: Route, foreign_routes: Iterable[Route], model: str, gateways: Mapping[GatewayKey, SeenGateway]
) -> RouteConflict | None:
    """Return the first match of foreign routes that takes requests of a service.

    Args:
        route: the route of the service.
        foreign_routes: routes that no service controls.
        model: the model's name in Triton. Requests for other models are none of the service's.
        gateways: what is known of the Gateways; those of which nothing is known may be absent.
    """
    for foreign in foreign_routes:
        hostname = min(route.hostnames & foreign.hostnames, default="")
        pairs = ((one, other) for one in sorted(route.attachments) for other in foreign.attachments)
        gateway = next((one.gateway for one, other in pairs if _share_listener(one, other, gateways)), None)
        if not hostname or gateway is None:
            continue
        for match in foreign.matches:
            precedence = _find_precedence(match, foreign.age, route.age, model)
            if precedence is not None:
                return RouteConflict(foreign.age.route, gateway, hostname, match, precedence)
    return None


def _read_matches(spec: Mapping[str, Any]) -> Iterator[PathMatch]:
    """Yield the matches of all rules that may take a request of a service. Those of the path / never do."""
    for rule in mappings(spec.get("rules")):
        for match in mappings(rule.get("matches")):
            path = mapping(match.get("path"))
            kind, value = text(path.get("type") or "PathPrefix"), text(path.get("value"))
            service_path = next((each for each in _PATHS if _is_under(value, each)), None)
            is_refined = any(match.get(part) for part in ("headers", "method", "queryParams"))
            if service_path is not None and kind in {"Exact", "PathPrefix"} and not is_refined:
                yield PathMatch(value, kind == "Exact", service_path)


def read_attachments(body: Mapping[str, Any]) -> Iterator[Attachment]:
    """Yield the parents of a route that have accepted it. Its status may still list former ones."""
    namespace = text(mapping(body.get("metadata")).get("namespace"))
    accepted = {
        _read_attachment(mapping(parent.get("parentRef")), namespace)
        for parent in mappings(mapping(body.get("status")).get("parents"))
        if any(c.get("type") == "Accepted" and c.get("status") == "True" for c in mappings(parent.get("conditions")))
    }
    for ref in mappings(mapping(body.get("spec")).get("parentRefs")):
        attachment = _read_attachment(ref, namespace)
        if attachment is not None and attachment in accepted:
            yield attachment


def _read_attachment(ref: Mapping[str, Any], namespace: str) -> Attachment | None:
    """Return the Gateway of a reference; None: it is of another kind. Some controllers omit the defaults."""
    if (ref.get("group") or GATEWAY.group, ref.get("kind") or GATEWAY.name) != (GATEWAY.group, GATEWAY.name):
        return None
    key = GatewayKey(text(ref.get("namespace")) or namespace, text(ref.get("name")))
    return Attachment(key, text(ref.get("sectionName")), number(ref.get("port")))


def _share_listener(one: Attachment, other: Attachment, gateways: Mapping[GatewayKey, SeenGateway]) -> bool:
    if one.gateway != other.gateway or (one.section and other.section and one.section != other.section):
        return False
    seen = gateways.get(one.gateway)
    by_section = seen.ports if seen is not None else {}
    # A listener of which nothing is known may have any port.
    ports = {each.port or by_section.get(each.section, 0) for each in (one, other)} - {0}
    return len(ports) < 2


def _find_precedence(match: PathMatch, foreign: Age, own: Age, model: str) -> Precedence | None:
    """Return the criterion by which a match of a foreign route takes requests of the service; None: it takes none."""
    requested = match.service_path if match.service_path != MODELS_PATH else f"{MODELS_PATH}/{model}"
    is_wider = not match.is_exact and _is_under(requested, match.path.rstrip("/"))
    if not is_wider and not _is_under(match.path, requested):
        return None
    if match.is_exact:
        return Precedence.EXACT
    if len(match.path) > len(match.service_path):
        return Precedence.PATH
    if foreign > own:
        return None
    return Precedence.AGE if foreign.created != own.created else Precedence.NAME


def _is_under(path: str, prefix: str) -> bool:
    """Whether a path prefix matches a path; it is compared element by element.

    >>> _is_under("/v2/models/a", "/v2/models"), _is_under("/v2/modelsa", "/v2/models"), _is_under("/v2", "")
    (True, False, True)
    """
    return path == prefix or path.startswith(f"{prefix}/")
