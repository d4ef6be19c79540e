"""The HTTPRoute and its policy, which the predictor and all variants share: what to write next, and when. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api import Traffic
from conch.api.kinds import HTTP_ROUTE, Ref
from conch.api.meta import Manifest
from conch.api.names import ANNOTATION_ACCEPTED
from conch.api.times import format_time
from conch.observe import Snapshot
from conch.observe.compare import is_subset
from conch.observe.fields import annotations_of, moment
from conch.traffic.features import find_unsupported_hash, has_envoy_gateway
from conch.traffic.gateway import GatewayRouter
from conch.traffic.policy import backend_traffic_policy
from conch.traffic.route import http_route, matches
from conch.traffic.router import TrackRoute
from conch.traffic.slots import VACANT, active_slots, next_slots, read_slots

# A gateway's controller accepts a route before its proxies apply it, and no API reports when they have. Envoy mostly
# needs less than 0.1 s, and waits at most 15 s for the endpoints of a new cluster (its initial_fetch_timeout).
SETTLE_SECONDS: Final = 20.0


@dataclass(frozen=True)
class _Next:
    """The route to write now, and the seconds until another write is due; None: not before an event."""

    route: Manifest
    wait: float | None = None


def shared_resources(snapshot: Snapshot, track_routes: Sequence[TrackRoute]) -> list[Manifest]:
    """Return the objects that the predictor and all variants share: with Gateways, the route and perhaps its policy."""
    following, traffic = _next(snapshot, track_routes), snapshot.service.spec.traffic
    if following is None or traffic is None:
        return []
    consistent_hash = None if find_unsupported_hash(snapshot, traffic) else traffic.consistent_hash
    may_scale_to_zero = any(not track_route.service.spec.predictor.min_replicas for track_route in track_routes)
    if consistent_hash is None and not (may_scale_to_zero and has_envoy_gateway(snapshot)):
        return [following.route]
    return [following.route, backend_traffic_policy(snapshot.service, consistent_hash)]


def is_written(snapshot: Snapshot, track_routes: Sequence[TrackRoute]) -> bool:
    """Whether the API server has the route as it should be now."""
    following, seen = _next(snapshot, track_routes), snapshot.children.get(Ref(HTTP_ROUTE, snapshot.key.name)) or {}
    return following is None or is_subset(seen.get("spec"), following.route["spec"])


def route_wait(snapshot: Snapshot, track_routes: Sequence[TrackRoute]) -> float | None:
    """Return the seconds until the route should be written again, though nothing happens; None: not before an event."""
    following = _next(snapshot, track_routes)
    return following.wait if following else None


def _next(snapshot: Snapshot, track_routes: Sequence[TrackRoute]) -> _Next | None:
    traffic = snapshot.service.spec.traffic
    if traffic is None or not traffic.gateways:
        return None
    desired = matches(track_routes)
    seen = snapshot.children.get(Ref(HTTP_ROUTE, snapshot.key.name))
    if seen is None:
        return _Next(http_route(snapshot.service, traffic, track_routes, active_slots(desired)))
    accepted = _accepted(snapshot, traffic, seen)
    left = _settles_in(seen, accepted, snapshot.now)
    slots = next_slots(read_slots(seen, snapshot.key.name), desired, settled=left == 0)
    route = http_route(
        snapshot.service, traffic, track_routes, slots, "" if all(slot.active for slot in slots) else accepted
    )
    is_last = {slot.track for slot in slots if slot.active} >= desired.keys() and slots[-1:] != (VACANT,)
    return _Next(route, None if is_last else left or None)


def _accepted(snapshot: Snapshot, traffic: Traffic, route: Mapping[str, Any]) -> str:
    """Return the value of ANNOTATION_ACCEPTED that the route should have.

    One of another generation stays as it is, without a write, until the present one is accepted.
    """
    generation = str(route["metadata"]["generation"])
    before = annotations_of(route).get(ANNOTATION_ACCEPTED, "")
    of, _, since = before.partition(" ")
    accepted_at = moment(since)
    # A time that cannot be read, or in the future, is not Conch's.
    if accepted_at is None or accepted_at > snapshot.now + SETTLE_SECONDS:
        before = ""
    is_present = bool(before) and of == generation
    if GatewayRouter(snapshot.service, traffic).obstacle(snapshot, route) is not None:
        return "" if is_present else before
    return before if is_present else f"{generation} {format_time(math.ceil(snapshot.now))}"


def _settles_in(route: Mapping[str, Any], accepted: str, now: float) -> float | None:
    """Return the seconds until every gateway has had the time to apply the route; None: not every one accepted it."""
    generation, _, since = accepted.partition(" ")
    accepted_at = moment(since)
    if generation != str(route["metadata"]["generation"]) or accepted_at is None:
        return None
    return max(0.0, accepted_at + SETTLE_SECONDS - now)
