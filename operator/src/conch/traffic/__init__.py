"""How requests reach revisions: the interface of routers, and their implementations. Pure.

A router builds the objects that enforce a split, and reads the observed traffic from the snapshot.
Not here: the choice of the split (`decide`), calls.
"""

from conch.api import InferenceService
from conch.api.meta import Manifest
from conch.observe import Track
from conch.traffic.features import has_session_affinity, mirrors_for_sure, no_mirror
from conch.traffic.gateway import GatewayRouter, MirrorRouter
from conch.traffic.router import ObservedTraffic, Shares, TrackRoute, TrafficRouter
from conch.traffic.service import (
    ReplicaRouter,
    ServiceRouter,
    build_root_service,
    find_endpoint_lag,
    wrote_stable,
)
from conch.traffic.shared import is_written, route_wait, shared_resources

__all__ = [
    "GatewayRouter",
    "MirrorRouter",
    "ObservedTraffic",
    "ReplicaRouter",
    "ServiceRouter",
    "Shares",
    "TrackRoute",
    "TrafficRouter",
    "find_endpoint_lag",
    "has_session_affinity",
    "is_written",
    "mirrors_for_sure",
    "no_mirror",
    "root_service",
    "route_wait",
    "router_of",
    "shared_resources",
    "still_reached",
    "wrote_stable",
]


def router_of(service: InferenceService) -> TrafficRouter:
    """Return the router of a service, or of one of its variants."""
    traffic, variant = service.spec.traffic, service.variant_spec
    if traffic is None or (variant is not None and not variant.routed):
        return ReplicaRouter() if service.spec.rollout.may_swap and variant is None else ServiceRouter()
    if not traffic.gateways:
        return ReplicaRouter()
    return MirrorRouter(service, traffic) if variant and variant.mirror else GatewayRouter(service, traffic)


def still_reached(track: Track) -> frozenset[str]:
    """Return which revisions with pods the route may still lead to, whatever the desired split is."""
    traffic = track.service.spec.traffic
    if traffic is None or not traffic.gateways:
        return frozenset()
    reachable = GatewayRouter(track.service, traffic).observe(track).reachable
    return frozenset(name for name in reachable if track.deployment(track.workload_of(name)) is not None)


def root_service(track_route: TrackRoute) -> Manifest:
    """Return the Service that clients in the cluster know."""
    return build_root_service(track_route, router_of(track_route.service).select(track_route))
