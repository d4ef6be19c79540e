"""With a gateway: an HTTPRoute shares requests out exactly, and its status tells when it does.

One route for both protocols, gRPC by its path: all requests are then shared out by one write, and a GRPCRoute
beside it would ask for the same host names at the same listener, which gateways may refuse (Traefik does:
HostnameConflict). The Service's port says that its pods speak HTTP/2 (appProtocol, GEP-1911).
Sources: gateway-api.sigs.k8s.io, the HTTPRoute page, and GEP-1364 (route status).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from conch.api import InferenceService, Traffic, duration_seconds
from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE, Ref
from conch.api.meta import Manifest, child
from conch.observe import Trouble, World
from conch.observe.gateways import SeenGateways, unsupported
from conch.traffic.router import InForce, Shares
from conch.traffic.service import root_service
from conch_contract import names

_GATEWAY: Final = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
# Of the two protocols only what answers inference: Triton's other endpoints are not for the outside.
_HTTP_PATHS: Final = ("/v2/models", "/v2/health")
_GRPC_PATHS: Final = ("/inference.GRPCInferenceService",)
# As GatewayClass.status.supportedFeatures names it (GEP-2162).
_TIMEOUTS: Final = "HTTPRouteRequestTimeout"


class GatewayRouter:
    """The Gateway API. The root Service stays with the revision that carries the service."""

    atomic = False  # a route is written at once, and followed when a gateway gets to it

    def __init__(self, service: InferenceService, traffic: Traffic) -> None:
        self._service = service
        self._traffic = traffic

    def children(self, serving: str, shares: Shares) -> list[Manifest]:
        """The root Service for clients in the cluster, and the route for the others."""
        http = _rule(_HTTP_PATHS, shares, names.HTTP_PORT)
        if self._traffic.timeout:
            http["timeouts"] = {"request": gateway_duration(self._traffic.timeout)}
        spec = {
            "parentRefs": list(self._parents()),
            "hostnames": list(self._traffic.hostnames),
            "rules": [http, _rule(_GRPC_PATHS, shares, names.GRPC_PORT)],
        }
        route = {**child(self._service, HTTP_ROUTE, self._service.metadata.name), "spec": spec}
        return [root_service(self._service, serving, serving), route]

    def in_force(self, world: World) -> InForce:
        """The shares that the route names, once every gateway has accepted just this route.

        What a gateway that is gone once said of the route still stands in its status, and counts for nothing.
        """
        route = world.children.get(Ref(HTTP_ROUTE, world.key.name))
        if route is None:
            return InForce(trouble=Trouble("RouteMissing", "The route is not there yet."))
        shares = _shares(route)
        trouble = _missing(world.gateways) or self._refused(route)
        lacks = self._unsupported(world)
        if trouble is None:
            return InForce(shares, shares, frozenset(shares), unsupported=lacks)
        # Until a change is accepted, requests may take the way that was in force before it.
        every = frozenset(ref.name for ref in world.children if ref.kind == DEPLOYMENT)
        reachable = every if route["status"]["parents"] else frozenset(shares)
        return InForce(reachable=reachable, trouble=trouble, unsupported=lacks)

    def follows(self, told: Shares, shares: Shares) -> bool:
        """Whether the accepted routes name just these shares."""
        return told == shares

    def pods(self, weight: int, capacity: int) -> int:
        """Return a share of the capacity, rounded up; one pod can answer at all.

        >>> router = GatewayRouter.__new__(GatewayRouter)
        >>> [router.pods(weight, 8) for weight in (0, 1, 5, 25, 50, 99, 100)]
        [1, 1, 1, 2, 4, 8, 8]
        """
        return max(1, -(-capacity * weight // 100))

    def _parents(self) -> Iterator[Manifest]:
        for gateway in self._traffic.gateways:
            namespace = gateway.namespace or self._service.metadata.namespace
            section = {"sectionName": gateway.section_name} if gateway.section_name else {}
            yield {**_GATEWAY, "namespace": namespace, "name": gateway.name, **section}

    def _unsupported(self, world: World) -> Trouble | None:
        """What the service asks and a gateway is known not to do. The route says it all the same: it may learn."""
        gateways = world.gateways or {}
        key = unsupported(gateways, _TIMEOUTS) if self._traffic.timeout else None
        if key is None:
            return None
        return Trouble(
            "TimeoutNotSupported",
            f"traffic.timeout is {self._traffic.timeout}, and Gateway {key} does not enforce it: GatewayClass"
            f" {gateways[key].class_name} does not list {_TIMEOUTS} among its supportedFeatures;"
            " remove the timeout, or name a Gateway of another class in traffic.gateways",
        )

    def _refused(self, route: Mapping[str, Any]) -> Trouble | None:
        """Why a gateway does not send requests as the route says, if any does not."""
        for parent in self._parents():
            told = [answer for answer in route["status"]["parents"] if _same(answer["parentRef"], parent)]
            where = f"Gateway {parent['namespace']}/{parent['name']}"
            if not told:
                return Trouble(
                    "GatewaySilent",
                    f"{where} has not answered to {route['kind']} {route['metadata']['name']}; if it stays so, see"
                    " that the Gateway exists, that its controller runs, and traffic.gateways names it rightly",
                )
            for kind in ("Accepted", "ResolvedRefs"):
                found = _refusal(route, told, kind, where)
                if found is not None:
                    return found
        return None


def _missing(gateways: SeenGateways | None) -> Trouble | None:
    """Which of a service's Gateways is known not to be there, or is of a class that is not.

    >>> from conch.observe.gateways import GatewayKey, SeenGateway
    >>> key = GatewayKey("infra", "public")
    >>> _missing({key: SeenGateway()}).reason, _missing({key: SeenGateway(True, "envoy")}).reason
    ('GatewayMissing', 'GatewayClassMissing')
    >>> _missing({key: SeenGateway(True, "envoy", True)}), _missing(None)
    (None, None)
    """
    for key, seen in (gateways or {}).items():
        if not seen.present:
            return Trouble(
                "GatewayMissing",
                f"traffic.gateways names Gateway {key}, which does not exist; create it, or name another",
            )
        if not seen.class_present:
            return Trouble(
                "GatewayClassMissing",
                f"traffic.gateways names Gateway {key}, whose GatewayClass {seen.class_name} does not exist; install"
                " the controller that brings the class, or name another Gateway",
            )
    return None


def _refusal(route: Mapping[str, Any], told: Sequence[Mapping[str, Any]], kind: str, where: str) -> Trouble | None:
    """What one of a gateway's conditions has against the route's present generation."""
    for answer in told:
        condition = next((c for c in answer["conditions"] if c["type"] == kind), None)
        if condition is None or condition["observedGeneration"] != route["metadata"]["generation"]:
            return Trouble("GatewayPending", f"{where} has not taken up the last change of {route['kind']} yet.")
        if condition["status"] != "True":
            said = f"{condition['reason']}: {condition['message']}"
            return Trouble("RouteRefused", f"{where} refuses {route['kind']} {route['metadata']['name']}: {said}")
    return None


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


def _rule(paths: Sequence[str], shares: Shares, port: int) -> Manifest:
    """Return the rule that shares requests to some paths out."""
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in paths],
        "backendRefs": [
            {"group": "", "kind": "Service", "name": name, "port": port, "weight": weight}
            for name, weight in shares.items()
        ],
    }


def _shares(route: Mapping[str, Any]) -> dict[str, int]:
    """What a route says itself: percent by revision."""
    return {ref["name"]: ref["weight"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}


def _same(told: Mapping[str, Any], parent: Manifest) -> bool:
    """Whether a gateway answers to this reference; some controllers leave the defaults out."""
    fields = ("group", "kind", "namespace", "name", "sectionName")
    return all(told.get(field, _GATEWAY.get(field)) == parent.get(field) for field in fields)
