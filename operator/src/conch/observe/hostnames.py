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


class Hostnames:
    """Hostnames of all services, as they were last seen."""

    def __init__(self) -> None:
        self._claims: dict[ServiceKey, frozenset[Claim]] = {}
        self._services: dict[str, set[ServiceKey]] = defaultdict(set)

    def put(self, key: ServiceKey, service: Mapping[str, Any]) -> None:
        """Take in a service, as its manifest is spelled."""
        self.discard(key)
        claims = frozenset(read_claims(service))
        if claims:
            self._claims[key] = claims
        for claim in claims:
            self._services[claim.hostname].add(key)

    def discard(self, key: ServiceKey) -> None:
        """Forget a service."""
        for claim in self._claims.pop(key, ()):
            self._services[claim.hostname].discard(key)
            if not self._services[claim.hostname]:
                self._services.pop(claim.hostname)

    def claimants(self, hostnames: Iterable[str]) -> frozenset[ServiceKey]:
        """Return the services that claim any of these hostnames, at whatever Gateway."""
        return frozenset(key for hostname in hostnames for key in self._services.get(hostname, ()))

    def others(self, key: ServiceKey) -> dict[ServiceKey, Claim]:
        """Return the other services that claim what this one does, each with the first of its claims."""
        found = {}
        for claim in sorted(self._claims.get(key, ())):
            for other in sorted(self._services[claim.hostname] - {key}):
                if other not in found and any(claim.overlaps(each) for each in self._claims[other]):
                    found[other] = claim
        return found


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


def is_accepted(route: Mapping[str, Any], claim: Claim) -> bool:
    """Whether the Gateway of a claim has accepted a route (trimmed): only then it sends requests there."""
    own = route["metadata"]["namespace"]
    for parent in mappings(mapping(route.get("status")).get("parents")):
        ref = mapping(parent.get("parentRef"))
        at = GatewayKey(str(ref.get("namespace") or own), str(ref.get("name", "")))
        conditions = mappings(parent.get("conditions"))
        if at == claim.gateway and any(c.get("type") == "Accepted" and c.get("status") == "True" for c in conditions):
            return True
    return False
