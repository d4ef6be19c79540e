"""The hostnames of services at Gateways: of two services with the same one, one gets all its requests.

The routes of all services have the same paths, so that a gateway distinguishes them by the hostname alone.
Source: gateway-api.sigs.k8s.io, HTTPRouteRule.matches: of equal matches the oldest route's wins.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from conch.api.kinds import ServiceKey
from conch.observe.fields import mapping, text
from conch.observe.gateways import GatewayKey
from conch.observe.routes import Age, read_age, read_attachments


class Claim(NamedTuple):
    """One hostname at one listener of a Gateway, or at all of them, which the Gateway has accepted."""

    gateway: GatewayKey
    section: str  # the listener's name; empty: all listeners
    hostname: str


class _Route(NamedTuple):
    """The HTTPRoute of a service, as far as it decides which service gets the requests of a hostname."""

    age: Age
    claims: frozenset[Claim]


_Ages = list[tuple[Age, ServiceKey]]
"""Routes in the order in which a gateway prefers them."""


class Hostnames:
    """The hostnames that the routes of all services have at Gateways, as they were last seen.

    A lookup costs what the claims of one route cost, whatever the number of routes with the same hostname.
    """

    def __init__(self) -> None:
        self._routes: dict[ServiceKey, _Route] = {}
        # By Gateway and hostname, and then by section.
        self._ages: dict[tuple[GatewayKey, str], dict[str, _Ages]] = defaultdict(dict)
        self._services: dict[str, set[ServiceKey]] = defaultdict(set)  # by hostname
        self._oldest_change: dict[tuple[GatewayKey, str], Age] = {}  # since the last take_affected

    def put_route(self, key: ServiceKey, route: Mapping[str, Any]) -> None:
        """Add or replace the HTTPRoute of a service."""
        read = _Route(read_age(route), frozenset(_read_claims(route)))
        if read != self._routes.get(key):
            self.discard_route(key)
            self._add(key, read)

    def discard_route(self, key: ServiceKey) -> None:
        """Forget the HTTPRoute of a service."""
        route = self._routes.pop(key, None)
        if route is None:
            return
        for claim in route.claims:
            sections = self._ages[claim.gateway, claim.hostname]
            sections[claim.section].remove((route.age, key))
            if not sections[claim.section]:
                sections.pop(claim.section)
            if not sections:
                self._ages.pop((claim.gateway, claim.hostname))
            self._services[claim.hostname].discard(key)
            if not self._services[claim.hostname]:
                self._services.pop(claim.hostname)
            self._note_change(claim, route.age)

    def services(self, hostnames: Iterable[str]) -> frozenset[ServiceKey]:
        """Return the services with a route for any of these hostnames, at whatever Gateway."""
        return frozenset(key for hostname in hostnames for key in self._services.get(hostname, ()))

    def conflict(self, key: ServiceKey) -> tuple[ServiceKey, Claim] | None:
        """Return the service that gets the requests of a hostname of this one, and the claim of this one to it.

        Its route is the oldest one, and older than that of this service.
        """
        own = self._routes.get(key)
        first = min(self._find_older(own), default=None) if own is not None else None
        return (first[2], first[1]) if first is not None else None

    def take_affected(self) -> frozenset[ServiceKey]:
        """Return the services whose conflicts may have changed since the last call.

        A change of a route concerns those with a younger one. So a service that comes with a hostname that thousands
        have concerns none of them.
        """
        changes, self._oldest_change = self._oldest_change, {}
        return frozenset(
            key
            for place, age in changes.items()
            for ages in self._ages.get(place, {}).values()
            for _, key in ages[bisect_right(ages, age, key=lambda entry: entry[0]) :]
        )

    def _add(self, key: ServiceKey, route: _Route) -> None:
        self._routes[key] = route
        for claim in route.claims:
            insort(self._ages[claim.gateway, claim.hostname].setdefault(claim.section, []), (route.age, key))
            self._services[claim.hostname].add(key)
            self._note_change(claim, route.age)

    def _note_change(self, claim: Claim, age: Age) -> None:
        place = claim.gateway, claim.hostname
        self._oldest_change[place] = min(age, self._oldest_change.get(place, age))

    def _find_older(self, own: _Route) -> Iterator[tuple[Age, Claim, ServiceKey]]:
        """Yield, for each claim of a route, the oldest route that takes its requests."""
        for claim in own.claims:
            for section, ages in self._ages[claim.gateway, claim.hostname].items():
                age, key = ages[0]
                if age < own.age and (not section or not claim.section or section == claim.section):
                    yield age, claim, key


def _read_claims(route: Mapping[str, Any]) -> Iterator[Claim]:
    """Yield the hostnames of a route at the Gateways that have accepted it."""
    names = mapping(route.get("spec")).get("hostnames")
    hostnames = [text(name).lower() for name in names] if isinstance(names, list | tuple) else []
    for attachment in read_attachments(route):
        yield from (Claim(attachment.gateway, attachment.section, name) for name in hostnames if name)
