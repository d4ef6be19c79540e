"""The HTTPRoute of a service: which requests go to which revision, and which revisions get copies.

One route for both protocols, gRPC by its path: all requests are then shared out by one write, and a GRPCRoute
beside it would claim the same host names at the same listener, which gateways may refuse (Traefik does:
HostnameConflict). The Service's port states that its pods speak HTTP/2 (appProtocol, GEP-1911).
Source: gateway-api.sigs.k8s.io, the HTTPRoute page; of two rules with the same path the one with headers wins.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from conch.api import Header, InferenceService, Match, Traffic, duration_seconds
from conch.api.kinds import HTTP_ROUTE
from conch.api.meta import Manifest, child
from conch.api.names import ANNOTATION_ACCEPTED, GRPC_PATHS, HTTP_PATHS
from conch.api.numbers import percent
from conch.traffic.observed import observed_rules
from conch.traffic.router import TrackRoute, largest
from conch.traffic.slots import INACTIVE_HEADER, Slot
from conch_contract import names

GATEWAY: Final = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}


def http_route(
    service: InferenceService,
    traffic: Traffic,
    track_routes: Sequence[TrackRoute],
    slots: Sequence[Slot],
    accepted: str = "",
) -> Manifest:
    """Build the route.

    The predictor's rules come first, for a rule keeps its index (`slots`): of two rules with the same path the one
    with headers wins in any order.

    Args:
        service: the service as a whole.
        traffic: its spec.traffic.
        track_routes: those of the predictor, and of the variants that should have requests now.
        slots: the rules of variants with a match.
        accepted: the value of ANNOTATION_ACCEPTED; empty: the route has none.
    """
    variants = [(each, spec) for each in track_routes if (spec := each.service.variant_spec) is not None]
    mirrors = [(each, spec.mirror) for each, spec in variants if spec.mirror]
    matched = {each.service.track: (each, spec.match) for each, spec in variants}
    longest = _longest(track_routes)
    rules = [*_rules(traffic, weights(track_routes), (), mirrors, longest)]
    for index, slot in enumerate(slots):
        track_route, match = matched.get(slot.track, (None, ()))
        backends = track_route.shares if track_route else weights(track_routes)
        rules += _rules(traffic, backends, match if slot.active else (_inactive(index),), (), longest)
    annotations = {ANNOTATION_ACCEPTED: accepted} if accepted else None
    head = child(service, HTTP_ROUTE, service.metadata.name, annotations=annotations)
    return {
        **head,
        "spec": {"parentRefs": list(parents(service, traffic)), "hostnames": list(traffic.hostnames), "rules": rules},
    }


def _longest(track_routes: Sequence[TrackRoute]) -> str | None:
    """Return the maximum of longestRequest over the revisions with shares; None: no revision sets one."""
    return max(
        (track_route.longest_request for track_route in track_routes if track_route.longest_request),
        key=duration_seconds,
        default=None,
    )


def matches(track_routes: Sequence[TrackRoute]) -> dict[str, Sequence[Match]]:
    """Return the matches of variants, by track, in the order of the spec."""
    return {
        each.service.track: spec.match for each in track_routes if (spec := each.service.variant_spec) and spec.match
    }


def weights(track_routes: Sequence[TrackRoute]) -> dict[str, int]:
    """Return the weights of the revisions that share the requests which no match claims.

    A variant's share is split among its revisions, and the predictor has the rest: in percent where that
    comes to whole numbers, else in hundredths of a percent.
    """
    variants = [(each, spec.weight or 0) for each in track_routes if (spec := each.service.variant_spec)]
    rest = 100 - sum(weight for _, weight in variants)
    predictor = [(each, rest) for each in track_routes if not each.service.variant]
    parts = {
        name: whole * share for each, whole in (*predictor, *variants) for name, share in each.shares.items() if whole
    }
    exact = all(part % 100 == 0 for part in parts.values())
    return {name: part // 100 if exact else part for name, part in parts.items()}


def shared_out(route: Mapping[str, Any], track: str) -> dict[str, int]:
    """Return how a route shares requests out among the revisions of a variant, in percent.

    A revision that gets copies gets all of its share. Empty where no request reaches the variant.
    """
    found: dict[str, int] = {}
    for rule in observed_rules(route):
        found |= {**rule.weights, **dict.fromkeys(rule.copies, 100)}
    ours = {name: weight for name, weight in found.items() if name.rpartition("-")[0] == track}
    total = sum(ours.values())
    return {name: 100 * weight // total for name, weight in ours.items()} if total else {}


def parents(service: InferenceService, traffic: Traffic) -> Iterator[Manifest]:
    """Yield the references to the gateways, in full."""
    for gateway in traffic.gateways:
        namespace = gateway.namespace or service.metadata.namespace
        section = {"sectionName": gateway.section_name} if gateway.section_name else {}
        yield {**GATEWAY, "namespace": namespace, "name": gateway.name, **section}


def gateway_duration(text: str) -> str:
    """Return a duration as the Gateway API spells it (GEP-2257): whole numbers of h, m, s and ms.

    >>> gateway_duration("1.5s"), gateway_duration("90m")
    ('1s500ms', '1h30m')
    """
    rest = max(1, round(duration_seconds(text) * 1000))
    parts = []
    for unit, milliseconds in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, milliseconds)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts)


def _rules(
    traffic: Traffic,
    backends: Mapping[str, int],
    matches: Sequence[Match],
    mirrors: Sequence[tuple[TrackRoute, str]],
    longest: str | None,
) -> Iterator[Manifest]:
    """Yield the two rules, for HTTP and for gRPC, that share some requests out; `longest`: a request may take."""
    for paths, port in ((HTTP_PATHS, names.HTTP_PORT), (GRPC_PATHS, names.GRPC_PORT)):
        rule: Manifest = {
            "matches": [_match(path, match) for path in paths for match in matches or (None,)],
            "backendRefs": [{**_backend(name, port), "weight": weight} for name, weight in backends.items()],
        }
        if mirrors:
            rule["filters"] = [_mirror(largest(track_route.shares), port, share) for track_route, share in mirrors]
        timeout = traffic.timeout if traffic.timeout and port == names.HTTP_PORT else longest
        if timeout:
            rule["timeouts"] = {"request": gateway_duration(timeout)}
        yield rule


def _match(path: str, match: Match | None) -> Manifest:
    headers = [{"type": "Exact", **header.to_wire()} for header in match.headers] if match else []
    return {"path": {"type": "PathPrefix", "value": path}, **({"headers": headers} if headers else {})}


def _inactive(index: int) -> Match:
    """Return the match of an inactive rule: the index keeps it apart from that of another one."""
    return Match(headers=(Header(name=INACTIVE_HEADER, value=str(index)),))


def _mirror(revision: str, port: int, mirror: str) -> Manifest:
    """Return the filter that copies a share of the requests; all of them need no number."""
    share = percent(mirror)
    fraction = {"fraction": {"numerator": share.numerator, "denominator": share.denominator}} if share < 1 else {}
    return {"type": "RequestMirror", "requestMirror": {"backendRef": _backend(revision, port), **fraction}}


def _backend(name: str, port: int) -> Manifest:
    return {"group": "", "kind": "Service", "name": name, "port": port}
