"""Which route gets a request that two of them match. Pure.

Source: gateway-api.sigs.k8s.io, HTTPRouteSpec.hostnames (the more specific hostname wins) and HTTPRouteRule.matches
(then the path, the method, the headers, the query parameters, the older route, its name).
Hostnames are compared as the routes spell them; a gateway may compare them after it has narrowed them to those of its
listener.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conch.api.names import MODELS_PATH
from conch.observe.gateways import GatewayKey, SeenGateway
from conch.observe.routes import Attachment, HeaderMatch, RequestMatch, Route, covering, is_under


class Precedence(StrEnum):
    """Why a match wins: the first of these in which two matches differ. The value ends the sentence of a condition."""

    HOSTNAME = "its hostname is more specific"
    EXACT = "its path is exact"
    PATH = "its path is longer"
    METHOD = "it names a method"
    HEADERS = "it names more headers"
    QUERY = "it names more query parameters"
    AGE = "its route is older"
    NAME = "its route is as old, and its name comes first"


@dataclass(frozen=True)
class RouteConflict:
    """A match of another route that takes requests of a service."""

    route: str  # namespace/name
    gateway: GatewayKey
    hostname: str
    match: RequestMatch
    precedence: Precedence


class _Rank(NamedTuple):
    """What is compared of two matches, in this order; the greater wins."""

    is_exact: bool
    path: int
    has_method: bool
    headers: int
    query_params: int


_BY_RANK = (Precedence.EXACT, Precedence.PATH, Precedence.METHOD, Precedence.HEADERS, Precedence.QUERY)


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
        gateway = _shared_gateway(route, foreign, gateways)
        if gateway is None:
            continue
        for hostname in sorted(foreign.hostnames):
            if route.hostnames.isdisjoint(covering(hostname)):
                continue  # the service's are more specific, or no request has both
            for match in foreign.matches:
                precedence = _find_precedence(match, foreign, hostname, route, model)
                if precedence is not None:
                    return RouteConflict(f"{foreign.namespace}/{foreign.name}", gateway, hostname, match, precedence)
    return None


def _shared_gateway(route: Route, foreign: Route, gateways: Mapping[GatewayKey, SeenGateway]) -> GatewayKey | None:
    """Return the first Gateway at one listener of which both routes may be."""
    for attachment in sorted(route.attachments):
        if any(_share_listener(attachment, other, gateways) for other in foreign.attachments):
            return attachment.gateway
    return None


def _share_listener(one: Attachment, other: Attachment, gateways: Mapping[GatewayKey, SeenGateway]) -> bool:
    if one.gateway != other.gateway or (one.section and other.section and one.section != other.section):
        return False
    seen = gateways.get(one.gateway)
    by_section = seen.ports if seen is not None else {}
    # A listener of which nothing is known may have any port.
    ports = {each.port or by_section.get(each.section, 0) for each in (one, other)} - {0}
    return len(ports) < 2


def _find_precedence(
    foreign_match: RequestMatch, foreign: Route, hostname: str, route: Route, model: str
) -> Precedence | None:
    """Return why a match of a foreign route takes requests of the service; None: it takes none."""
    common = [match for match in route.matches if _have_common_requests(match, foreign_match, model)]
    if hostname not in route.hostnames:
        return Precedence.HOSTNAME if common else None
    for match in common:
        # Some requests have the headers of both matches and no other one. The service loses them to the foreign match
        # unless one of its own matches wins them.
        candidates = (each for each in route.matches if _has_all_requests(each, match, foreign_match))
        precedence = _compare(foreign_match, foreign, max(candidates, key=_rank), route)
        if precedence is not None:
            return precedence
    return None


def _compare(foreign_match: RequestMatch, foreign: Route, match: RequestMatch, route: Route) -> Precedence | None:
    """Return why the match of the foreign route wins; None: it does not."""
    foreign_rank, rank = _rank(foreign_match), _rank(match)
    if foreign_rank == rank:
        if foreign.age > route.age:
            return None
        return Precedence.AGE if foreign.created != route.created else Precedence.NAME
    differing = (by for by, one, other in zip(_BY_RANK, foreign_rank, rank, strict=True) if one != other)
    return next(differing) if foreign_rank > rank else None


def _rank(match: RequestMatch) -> _Rank:
    return _Rank(match.is_exact, len(match.path), bool(match.method), len(match.headers), match.query_params)


def _have_common_requests(match: RequestMatch, foreign_match: RequestMatch, model: str) -> bool:
    """Whether a request of the service can match both."""
    requested = f"{match.prefix}/{model}" if match.prefix == MODELS_PATH else match.prefix
    if foreign_match.is_exact:
        is_met = is_under(foreign_match.path, requested)
    else:
        is_met = is_under(foreign_match.prefix, requested) or is_under(requested, foreign_match.prefix)
    return is_met and all(None in pair or pair[0] == pair[1] for pair in _header_values(match, foreign_match))


def _header_values(match: RequestMatch, foreign_match: RequestMatch) -> Iterator[tuple[str | None, str | None]]:
    """Yield the two values of each header that both name."""
    foreign = dict(foreign_match.headers)
    yield from ((header.value, foreign[header.name]) for header in match.headers if header.name in foreign)


def _has_all_requests(candidate: RequestMatch, match: RequestMatch, foreign_match: RequestMatch) -> bool:
    """Whether a match of the service has every request that both another of its matches and a foreign one have."""
    headers: Sequence[HeaderMatch] = (*match.headers, *foreign_match.headers)
    return candidate.path == match.path and all(header in headers for header in candidate.headers)
