"""HTTPRoutes at Gateways, in the small form that precedence needs; and those that no InferenceService controls.

Others write them, so a part of another type than expected is read as absent. Not kept, since they take no request of
a service: a route that no Gateway has accepted, one without hostnames (a service's route has some, and is more
specific), a match of other paths or methods, and a match by regular expression (its precedence is each gateway's own).
Source: gateway-api.sigs.k8s.io, HTTPRouteSpec, HTTPRouteMatch and ParentReference.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from conch.api.kinds import GATEWAY
from conch.api.names import GRPC_PATHS, HTTP_PATHS
from conch.observe.fields import mapping, mappings, number, text
from conch.observe.gateways import GatewayKey
from conch.observe.identity import controlling_service

# Of requests to Triton: metadata and readiness, and inference.
_METHODS: Final = frozenset({"GET", "POST"})
_NONE: Final[frozenset[str]] = frozenset()


class Attachment(NamedTuple):
    """A Gateway that has accepted a route, or the listeners of it that the route names."""

    gateway: GatewayKey
    section: str  # the listener's name; empty: any
    port: int  # of the listeners; 0: any


class HeaderMatch(NamedTuple):
    """A header that a request must have."""

    name: str  # in lower case
    value: str | None  # None: a pattern


@dataclass(frozen=True)
class RequestMatch:
    """One entry of `matches` of a rule."""

    path: str
    is_exact: bool  # whether the path is one, or else a prefix
    method: str  # empty: any
    headers: tuple[HeaderMatch, ...]
    query_params: int  # how many it names

    @property
    def prefix(self) -> str:
        """The path without the slash at its end, which a prefix may have or not."""
        return self.path.rstrip("/")


@dataclass(frozen=True)
class Route:
    """An HTTPRoute, as far as it decides who gets a request."""

    namespace: str
    name: str
    created: str  # RFC 3339, UTC, seconds
    attachments: frozenset[Attachment]
    hostnames: frozenset[str]
    matches: tuple[RequestMatch, ...]  # of all its rules

    @property
    def age(self) -> tuple[str, str]:
        """The order in which gateways prefer routes whose matches are equal."""
        return self.created, f"{self.namespace}/{self.name}"


class _Entry(NamedTuple):
    version: int
    route: Route


class ForeignRoutes:
    """Last seen routes that no InferenceService controls. What takes in a change returns the hostnames concerned.

    Concerned are the hostnames of the route, and the wildcards that cover them: with one of these a service loses
    requests to the route.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # by uid
        self._uids: dict[str, set[str]] = defaultdict(set)  # by hostname concerned

    def put(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Take in a route from a watch event; older versions than the known one are passed over."""
        meta = body["metadata"]
        uid, version = meta["uid"], number(meta.get("resourceVersion"))
        known = self._entries.get(uid)
        if known is not None and version < known.version:
            return _NONE
        route = None if controlling_service(body) else read_route(body)
        if known is not None and known.route == route:
            self._entries[uid] = _Entry(version, route)
            return _NONE
        before = self.evict(frozenset({uid}))
        if route is None:
            return before
        self._entries[uid] = _Entry(version, route)
        concerned = _hostnames_concerned(route)
        for hostname in concerned:
            self._uids[hostname].add(uid)
        return before | concerned

    def discard(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Forget a deleted route."""
        return self.evict(frozenset({body["metadata"]["uid"]}))

    def evict(self, gone: frozenset[str]) -> frozenset[str]:
        """Forget the routes that have these uids."""
        entries = [(uid, entry) for uid in gone if (entry := self._entries.pop(uid, None)) is not None]
        for uid, entry in entries:
            for hostname in _hostnames_concerned(entry.route):
                self._uids[hostname].discard(uid)
                if not self._uids[hostname]:
                    del self._uids[hostname]
        return frozenset(hostname for _, entry in entries for hostname in _hostnames_concerned(entry.route))

    def uids(self) -> frozenset[str]:
        """The uids of the routes that are kept."""
        return frozenset(self._entries)

    def at(self, hostnames: Iterable[str]) -> list[Route]:
        """Return the routes with these hostnames, or with more specific ones under a wildcard; the oldest first."""
        uids = {uid for hostname in hostnames for uid in self._uids.get(hostname, ())}
        return sorted((self._entries[uid].route for uid in uids), key=lambda route: route.age)


def covering(hostname: str) -> Iterator[str]:
    """Yield a hostname, and the wildcards that match all of its requests.

    >>> list(covering("a.b.example.com"))
    ['a.b.example.com', '*.b.example.com', '*.example.com', '*.com']
    >>> list(covering("*.example.com"))
    ['*.example.com', '*.com']
    """
    yield hostname
    labels = hostname.removeprefix("*.").split(".")
    start = 0 if hostname.startswith("*.") else 1
    yield from (wildcard for at in range(start, len(labels)) if (wildcard := _wildcard(labels[at:])) != hostname)


def read_route(body: Mapping[str, Any]) -> Route | None:
    """Read an HTTPRoute, whole or trimmed; None: it takes no request of any service."""
    meta, spec = mapping(body.get("metadata")), mapping(body.get("spec"))
    hostnames = frozenset(name for each in _items(spec.get("hostnames")) if (name := text(each).lower()))
    attachments = frozenset(_attachments(body, text(meta.get("namespace")))) if hostnames else None
    matches = tuple(dict.fromkeys(_matches(spec))) if attachments else ()
    if not (attachments and matches):
        return None
    return Route(
        namespace=text(meta.get("namespace")),
        name=text(meta.get("name")),
        created=text(meta.get("creationTimestamp")),
        attachments=attachments,
        hostnames=hostnames,
        matches=matches,
    )


def is_under(path: str, prefix: str) -> bool:
    """Whether a path prefix matches a path; it is compared element by element.

    >>> is_under("/v2/models/a", "/v2/models"), is_under("/v2/modelsa", "/v2/models"), is_under("/v2", "")
    (True, False, True)
    """
    return path == prefix or path.startswith(f"{prefix}/")


def _hostnames_concerned(route: Route) -> frozenset[str]:
    return frozenset(each for hostname in route.hostnames for each in covering(hostname))


def _wildcard(labels: list[str]) -> str:
    return ".".join(("*", *labels))


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list | tuple) else ()


def _attachments(body: Mapping[str, Any], namespace: str) -> Iterator[Attachment]:
    """Yield the parents of a route that have accepted it. Its status may still list former ones."""
    accepted = {
        _attachment(mapping(parent.get("parentRef")), namespace)
        for parent in mappings(mapping(body.get("status")).get("parents"))
        if any(c.get("type") == "Accepted" and c.get("status") == "True" for c in mappings(parent.get("conditions")))
    }
    for ref in mappings(mapping(body.get("spec")).get("parentRefs")):
        attachment = _attachment(ref, namespace)
        if attachment is not None and attachment in accepted:
            yield attachment


def _attachment(ref: Mapping[str, Any], namespace: str) -> Attachment | None:
    """Return what a reference names; None: no Gateway. Some controllers leave the defaults out."""
    if (ref.get("group") or GATEWAY.group, ref.get("kind") or GATEWAY.name) != (GATEWAY.group, GATEWAY.name):
        return None
    key = GatewayKey(text(ref.get("namespace")) or namespace, text(ref.get("name")))
    return Attachment(key, text(ref.get("sectionName")), number(ref.get("port")))


def _matches(spec: Mapping[str, Any]) -> Iterator[RequestMatch]:
    """Yield the matches of all rules that may take a request of a service. Without any, a rule has all requests."""
    for rule in mappings(spec.get("rules")):
        for match in mappings(rule.get("matches") or ({},)):
            found = _match(match)
            if found is not None:
                yield found


def _match(match: Mapping[str, Any]) -> RequestMatch | None:
    path = mapping(match.get("path"))
    kind, value = text(path.get("type") or "PathPrefix"), text(path.get("value") or "/")
    method = text(match.get("method"))
    if kind not in {"Exact", "PathPrefix"} or not value.startswith("/") or method not in {"", *_METHODS}:
        return None
    headers: dict[str, HeaderMatch] = {}
    for header in mappings(match.get("headers")):
        name = text(header.get("name")).lower()
        is_exact = (header.get("type") or "Exact") == "Exact"
        # Of two with one name the first counts.
        headers.setdefault(name, HeaderMatch(name, text(header.get("value")) if is_exact else None))
    found = RequestMatch(
        path=value,
        is_exact=kind == "Exact",
        method=method,
        headers=tuple(headers.values()),
        query_params=len({text(each.get("name")) for each in mappings(match.get("queryParams"))}),
    )
    return found if any(_may_meet(found, path) for path in (*HTTP_PATHS, *GRPC_PATHS)) else None


def _may_meet(match: RequestMatch, path: str) -> bool:
    return is_under(match.path if match.is_exact else match.prefix, path) or (
        not match.is_exact and is_under(path, match.prefix)
    )
