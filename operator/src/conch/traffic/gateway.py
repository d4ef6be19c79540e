"""With a gateway: an HTTPRoute shares requests out exactly, and its status shows since when.

Source: gateway-api.sigs.k8s.io, GEP-1364 (route status).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from conch.api import InferenceService, Traffic
from conch.api.kinds import HTTP_ROUTE, Ref
from conch.api.meta import Manifest
from conch.api.reasons import Reason
from conch.observe import Finding, ObservedService, Track
from conch.observe.gateways import GatewayKey, SeenGateway, SeenGateways
from conch.traffic.features import (
    find_hostname_conflict,
    find_policy_refusal,
    find_unsupported_hash,
    missing,
    no_mirror,
    no_timeout,
)
from conch.traffic.route import GATEWAY, parents, shared_out
from conch.traffic.router import ObservedTraffic, Shares, TrackRoute, largest
from conch.traffic.service import listed_revisions
from conch.traffic.slots import Slot, read_slots

_INACTIVE: Final = Finding(
    Reason.GATEWAY_PENDING,
    "The variant's rule is inactive until every gateway has had the time to apply its backends.",
)


class GatewayRouter:
    """The Gateway API. The root Service stays with the revision that carries the service."""

    atomic = False  # a route is written at once, and gateways apply it later

    def __init__(self, service: InferenceService, traffic: Traffic) -> None:
        self._service = service
        self._traffic = traffic

    def select(self, track_route: TrackRoute) -> str | None:
        """Return the revision that carries the service: clients in the cluster stay with it."""
        return track_route.serving

    def observe(self, track: Track) -> ObservedTraffic:
        """Return the shares that the route has, once every gateway has accepted just this route.

        The conditions of a gateway that no longer exists stay in the route's status, and are ignored.
        """
        found = self._in_route(track)
        # Clients in the cluster reach the root Service without the gateway.
        return replace(found, reachable=found.reachable | listed_revisions(track).keys())

    def _in_route(self, track: Track) -> ObservedTraffic:
        """Return the traffic of the route, and of what the gateways report of it."""
        route = track.children.get(Ref(HTTP_ROUTE, track.key.name))
        every = track.list_revisions_with_pods()
        if route is None:
            # Also a route that lost our label is not seen, and leads where it led until it is written again.
            return ObservedTraffic(
                reachable=every, obstacle=Finding(Reason.ROUTE_MISSING, "The route is not there yet.")
            )
        shares = shared_out(route, self._service.track)
        obstacle = self.obstacle(track, route)
        lacks = (
            find_hostname_conflict(track)
            or no_timeout(track, self._traffic)
            or find_unsupported_hash(track, self._traffic)
            or find_policy_refusal(track, self._traffic)
        )
        if obstacle is None:
            if Slot(self._service.track) in read_slots(route, track.key.name):
                return ObservedTraffic(reachable=frozenset(shares), obstacle=_INACTIVE, unsupported=lacks)
            return ObservedTraffic(shares, shares, frozenset(shares), unsupported=lacks)
        # Until a change is accepted, requests may go as before it.
        reachable = every.union(shares) if route["status"]["parents"] else frozenset(shares)
        return ObservedTraffic(reachable=reachable, obstacle=obstacle, unsupported=lacks)

    def obstacle(self, observed: ObservedService, route: Mapping[str, Any]) -> Finding | None:
        """Return why a gateway does not apply the route as it is; None: every gateway has accepted it."""
        return missing(observed.gateways) or self._refused(route, observed.gateways or {})

    def verify_weights(self, observed: Shares, desired: Shares) -> bool:
        """Whether the accepted route has just these shares."""
        return observed == desired

    def pods(self, weight: int, capacity: int) -> int:
        """Return a share of the capacity, rounded up; one pod can answer at all.

        >>> router = GatewayRouter.__new__(GatewayRouter)
        >>> [router.pods(weight, 8) for weight in (0, 1, 5, 25, 50, 99, 100)]
        [1, 1, 1, 2, 4, 8, 8]
        """
        return max(1, -(-capacity * weight // 100))

    def _refused(self, route: Mapping[str, Any], gateways: SeenGateways) -> Finding | None:
        """Return why a gateway does not apply the route; None: every gateway does.

        Only the conditions of the controller of the Gateway's class count: other controllers may have left some. Where
        the operator does not watch Gateways, one good answer is enough.
        """
        for parent in parents(self._service, self._traffic):
            seen = gateways.get(GatewayKey(parent["namespace"], parent["name"]), SeenGateway())
            answers = [
                answer
                for answer in route["status"]["parents"]
                if _is_same(answer["parentRef"], parent) and seen.controller in {"", answer["controllerName"]}
            ]
            where = f"Gateway {parent['namespace']}/{parent['name']}"
            if not answers:
                return Finding(
                    Reason.GATEWAY_NOT_RESPONDING,
                    f"{where} has not answered to {route['kind']} {route['metadata']['name']}; if it stays so, see"
                    " that the Gateway exists, that its controller runs, and traffic.gateways names it rightly",
                )
            found = [_refusal(route, answer, where) for answer in answers]
            if all(found):
                return found[0]
        return None


class MirrorRouter(GatewayRouter):
    """Copies of requests: all of a shadow's go to one revision, since no user waits for its answers."""

    def observe(self, track: Track) -> ObservedTraffic:
        """Return the revision that gets copies, where the gateways can make them."""
        cannot, found = no_mirror(track), super().observe(track)
        return ObservedTraffic(reachable=found.reachable, obstacle=cannot) if cannot else found

    def verify_weights(self, observed: Shares, desired: Shares) -> bool:
        """Whether the revision with the larger share gets all copies."""
        return observed == {largest(desired): 100}

    def pods(self, weight: int, capacity: int) -> int:
        """Return the capacity: a revision gets all copies or none."""
        return capacity if weight else 1


def _refusal(route: Mapping[str, Any], answer: Mapping[str, Any], where: str) -> Finding | None:
    """Return why a gateway does not accept the route's present generation."""
    for kind in ("Accepted", "ResolvedRefs"):
        condition = next((c for c in answer["conditions"] if c["type"] == kind), None)
        if condition is None or condition["observedGeneration"] != route["metadata"]["generation"]:
            return Finding(Reason.GATEWAY_PENDING, f"{where} has not taken up the last change of {route['kind']} yet.")
        if condition["status"] != "True":
            why = f"{condition['reason']}: {condition['message']}"
            return Finding(Reason.ROUTE_REFUSED, f"{where} refuses {route['kind']} {route['metadata']['name']}: {why}")
    return None


def _is_same(reference: Mapping[str, Any], parent: Manifest) -> bool:
    """Whether a status has this parent reference; some controllers leave the defaults out."""
    fields = ("group", "kind", "namespace", "name", "sectionName")
    return all(reference.get(field, GATEWAY.get(field)) == parent.get(field) for field in fields)
