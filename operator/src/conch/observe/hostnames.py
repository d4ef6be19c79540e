"""The hostnames of services at Gateways: of two services with the same one, one gets all its requests.

The routes of all services have the same paths, so that a gateway tells them apart by the hostname alone.
Source: gateway-api.sigs.k8s.io, HTTPRouteRule.matches: of equal matches the oldest route's wins.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from conch.api.kinds import ServiceKey
from conch.observe.fields import mapping, mappings, text
from conch.observe.gateways import GatewayKey
from conch.observe.routes import Age, read_age


class Claim(NamedTuple):
    """One hostname at one listener of a Gateway, or at all of them."""

    gateway: GatewayKey
    section: str  # the listener's name; empty: all listeners
    hostname: str

    def overlaps(self, other: "Claim") -> bool:
        """Whether a request may match both.

        >>> public = GatewayKey("infra", "public")
        >>> every, http = Claim(public, "", "a.example.com"), Claim(public, "http", "a.example.com")
        >>> every.overlaps(http), http.overlaps(Claim(public, "https", "a.example.com"))
        (True, False)
        """
        same = (self.gateway, self.hostname) == (other.gateway, other.hostname)
        return same and (not self.section or not other.section or self.section == other.section)


class _AcceptedRoute(NamedTuple):
    """The HTTPRoute of a service, as far as it decides who gets the requests of a hostname."""

    age: Age
    gateways: frozenset[GatewayKey]  # that have accepted it: only then they send requests there


class Hostnames:
    """Hostnames of all services, and the ages of their routes, as they were last seen."""

    def __init__(self) -> None:
        self._claims: dict[ServiceKey, frozenset[Claim]] = {}
        self._services: dict[str, set[ServiceKey]] = defaultdict(set)
        self._routes: dict[ServiceKey, _AcceptedRoute] = {}
        self._affected: set[ServiceKey] = set()

    def put(self, key: ServiceKey, service: Mapping[str, Any]) -> None:
        """Add or replace a service, as its manifest is spelled."""
        claims = frozenset(read_claims(service))
        if claims == self._claims.get(key, frozenset()):
            return
        self.discard(key)
        if claims:
            self._claims[key] = claims
        for claim in claims:
            self._services[claim.hostname].add(key)
        self._mark_affected(key)

    def put_route(self, key: ServiceKey, route: Mapping[str, Any]) -> None:
        """Add or replace the HTTPRoute of a service."""
        read = _AcceptedRoute(read_age(route), frozenset(_read_accepting_gateways(route)))
        if read != self._routes.get(key):
            self.discard_route(key)
            self._routes[key] = read
            self._mark_affected(key)

    def discard(self, key: ServiceKey) -> None:
        """Forget a service."""
        self._mark_affected(key)
        for claim in self._claims.pop(key, ()):
            self._services[claim.hostname].discard(key)
            if not self._services[claim.hostname]:
                self._services.pop(claim.hostname)

    def discard_route(self, key: ServiceKey) -> None:
        """Forget the HTTPRoute of a service."""
        self._mark_affected(key)
        self._routes.pop(key, None)

    def services(self, hostnames: Iterable[str]) -> frozenset[ServiceKey]:
        """Return the services that claim any of these hostnames, at whatever Gateway."""
        return frozenset(key for hostname in hostnames for key in self._services.get(hostname, ()))

    def conflict(self, key: ServiceKey) -> tuple[ServiceKey, Claim] | None:
        """Return the service that gets the requests of a hostname of this one, and the claim of this one to it.

        It has the oldest route of those that a Gateway of the claim has accepted, and an older one than this service.
        """
        own = self._routes.get(key)
        older = (
            (route.age, claim, other)
            for other, claim in self._overlapping(key)
            if own is not None and (route := self._routes.get(other)) is not None
            if route.age < own.age and claim.gateway in route.gateways
        )
        first = min(older, default=None)
        return (first[2], first[1]) if first is not None else None

    def take_affected(self) -> frozenset[ServiceKey]:
        """Return the services whose conflicts may have changed since the last call.

        A change concerns those whose routes are younger than that of the changed service: a service that comes with a
        hostname that thousands have concerns none of them.
        """
        affected, self._affected = frozenset(self._affected), set()
        return affected

    def _mark_affected(self, key: ServiceKey) -> None:
        if (own := self._routes.get(key)) is not None and own.gateways:
            routes = ((other, self._routes.get(other)) for other, _ in self._overlapping(key))
            self._affected.update(other for other, route in routes if route is not None and own.age < route.age)

    def _overlapping(self, key: ServiceKey) -> Iterator[tuple[ServiceKey, Claim]]:
        """Yield the other services that claim what this one does, with each claim of this one that they share."""
        for claim in self._claims.get(key, ()):
            for other in self._services[claim.hostname]:
                if other != key and any(claim.overlaps(each) for each in self._claims[other]):
                    yield other, claim


def read_claims(service: Mapping[str, Any]) -> Iterator[Claim]:
    """Yield the claims of an InferenceService, as its manifest is spelled.

    >>> traffic = {"gateways": [{"name": "public"}], "hostnames": ["a.example.com"]}
    >>> list(read_claims({"metadata": {"namespace": "demo"}, "spec": {"traffic": traffic}}))
    [Claim(gateway=GatewayKey(namespace='demo', name='public'), section='', hostname='a.example.com')]
    """
    own, traffic = service["metadata"]["namespace"], mapping(mapping(service.get("spec")).get("traffic"))
    for gateway in mappings(traffic.get("gateways")):
        key = GatewayKey(text(gateway.get("namespace")) or own, text(gateway.get("name")))
        for hostname in traffic.get("hostnames") or ():
            yield Claim(key, text(gateway.get("sectionName")), hostname)


def _read_accepting_gateways(route: Mapping[str, Any]) -> Iterator[GatewayKey]:
    """Yield the Gateways that have accepted a route."""
    own = route["metadata"]["namespace"]
    for parent in mappings(mapping(route.get("status")).get("parents")):
        ref = mapping(parent.get("parentRef"))
        conditions = mappings(parent.get("conditions"))
        if any(c.get("type") == "Accepted" and c.get("status") == "True" for c in conditions):
            yield GatewayKey(text(ref.get("namespace")) or own, text(ref.get("name")))
