"""How requests reach revisions: one interface, and three ways to enforce it. Pure.

A router says which children carry a split, and reads from the world what of it is in force.
May not enter: which split is wanted (that is `decide`), calls.
"""

from conch.api import InferenceService
from conch.traffic.gateway import GatewayRouter
from conch.traffic.router import InForce, Shares, TrafficRouter
from conch.traffic.service import ReplicaRouter, ServiceRouter

__all__ = ["GatewayRouter", "InForce", "ReplicaRouter", "ServiceRouter", "Shares", "TrafficRouter", "router_of"]


def router_of(service: InferenceService) -> TrafficRouter:
    """Return the way that a service asks for."""
    traffic = service.spec.traffic
    if traffic is None:
        return ServiceRouter(service)
    return GatewayRouter(service, traffic) if traffic.gateways else ReplicaRouter(service)
