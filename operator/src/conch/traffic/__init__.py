"""How requests reach revisions: one interface, and the ways to enforce it. Pure.

A router says what carries a split, and reads from the snapshot what of it is in force.
May not enter: which split is wanted (that is `decide`), calls.
"""

from conch.api import InferenceService
from conch.api.meta import Manifest
from conch.observe import Snapshot
from conch.traffic.features import has_session_affinity, mirrors_for_sure, no_mirror
from conch.traffic.gateway import GatewayRouter, MirrorRouter
from conch.traffic.router import InForce, Shares, TrafficRouter, Way
from conch.traffic.service import (
    ReplicaRouter,
    ServiceRouter,
    find_endpoint_lag,
    root_service,
    wrote_stable,
)
from conch.traffic.shared import is_written, route_wait, shared_resources

__all__ = [
    "GatewayRouter",
    "InForce",
    "MirrorRouter",
    "ReplicaRouter",
    "ServiceRouter",
    "Shares",
    "TrafficRouter",
    "Way",
    "find_endpoint_lag",
    "has_session_affinity",
    "is_written",
    "mirrors_for_sure",
    "no_mirror",
    "root",
    "route_wait",
    "router_of",
    "shared_resources",
    "still_reached",
    "wrote_stable",
]


def router_of(service: InferenceService) -> TrafficRouter:
    """Return the way that a service, or one of its variants, asks for."""
    traffic, asked = service.spec.traffic, service.asked
    if traffic is None or (asked is not None and not asked.routed):
        return ServiceRouter()
    if not traffic.gateways:
        return ReplicaRouter()
    return MirrorRouter(service, traffic) if asked and asked.mirror else GatewayRouter(service, traffic)


def still_reached(snapshot: Snapshot) -> frozenset[str]:
    """Return which revisions with pods the route may still lead to, however requests shall go from now on."""
    traffic = snapshot.service.spec.traffic
    if traffic is None or not traffic.gateways:
        return frozenset()
    reachable = GatewayRouter(snapshot.service, traffic).in_force(snapshot).reachable
    return frozenset(name for name in reachable if snapshot.deployment(name) is not None)


def root(way: Way) -> Manifest:
    """Return the Service that clients in the cluster know."""
    return root_service(way, router_of(way.service).selected(way))
