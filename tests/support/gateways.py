"""Two real Gateway API implementations in the cluster, so that a split is tested on what splits.

They differ where it matters to an operator. Envoy Gateway mirrors, leaves `supportedFeatures` empty, and reports a
change when it is in force. Traefik fills that list, accepts a mirror only to answer 500, refuses an HTTPRoute and
a GRPCRoute of one hostname (HostnameConflict), and reports a change up to two seconds before it is in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from conch.api.kinds import GATEWAY, GATEWAY_CLASS
from tests.cluster import binaries, images
from tests.support.kube import Kube, Object
from tests.support.place import Place
from tests.support.wait import TIMEOUT, until

Implementation = Literal["envoy", "traefik"]

NAMESPACE: Final = "conch-gateways"
PORT: Final = 80
MANIFESTS: Final[dict[Implementation, Path]] = {
    "envoy": Path(__file__).with_name("envoy.yaml"),
    "traefik": Path(__file__).with_name("traefik.yaml"),
}

# Where each one's Gateway is, and its name; examples/ name the first.
_PLACES: Final[dict[Implementation, tuple[str, str]]] = {
    "envoy": ("gateways", "public"),
    "traefik": (NAMESPACE, "traefik"),
}
_IMAGE: Final = "gateways"
_CONTROLLERS: Final[dict[Implementation, str]] = {"envoy": "envoy-gateway", "traefik": "traefik"}
_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Gateway:
    """A Gateway that admits routes from all namespaces. `address` (host:port) takes HTTP and gRPC without TLS."""

    name: Implementation
    address: str

    @property
    def parent(self) -> Object:
        """What a route's `parentRefs`, and a service's `traffic.gateways`, name it by."""
        namespace, name = _PLACES[self.name]
        return {"name": name, "namespace": namespace}


def deploy(place: Place, implementation: Implementation) -> Gateway:
    """Bring up an implementation and its Gateway on the local cluster; return it once it takes requests.

    What is up is left as it is. The image is built on first use: for it Envoy Gateway is compiled, 4 minutes once.

    Raises:
        ValueError: the cluster is the user's own, and so are its gateways.
        TooLateError: the Gateway was not programmed in 2 minutes; the text holds its conditions.
    """
    if place.local is None:
        raise ValueError("gateways are deployed on the local cluster only")
    images.build([_IMAGE])
    place.local.load(_IMAGE)
    place.namespace(NAMESPACE)
    if implementation == "envoy":
        _install_definitions(place.kube)
    place.kube.apply(MANIFESTS[implementation], NAMESPACE)
    controller = f"deployment/{_CONTROLLERS[implementation]}"
    place.kube.run("rollout", "status", controller, f"--namespace={NAMESPACE}", TIMEOUT)
    namespace, name = _PLACES[implementation]
    place.namespace(namespace)
    place.kube.apply(manifest(implementation), namespace)
    until(
        lambda: is_programmed(place.kube.get(GATEWAY, namespace, name)),
        f"Gateway {namespace}/{name} is programmed",
        _SECONDS,
        seen=lambda: (place.kube.get(GATEWAY, namespace, name) or {}).get("status"),
    )
    with place.reach(NAMESPACE, implementation, PORT) as [address]:
        return Gateway(implementation, address)


def manifest(implementation: Implementation) -> Object:
    """Return a Gateway that admits routes from all namespaces."""
    namespace, name = _PLACES[implementation]
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": PORT,  # Traefik serves a listener from the entry point that has its very port
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return {
        "apiVersion": GATEWAY.api_version,
        "kind": GATEWAY.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": implementation, "listeners": [listener]},
    }


def is_programmed(gateway: Object | None) -> bool:
    """Whether the status is of the Gateway's present generation, and the implementation serves it."""
    if gateway is None:
        return False
    generation = gateway["metadata"]["generation"]
    return any(
        condition["type"] == "Programmed"
        and condition["status"] == "True"
        and condition.get("observedGeneration") == generation
        for condition in gateway.get("status", {}).get("conditions", [])
    )


def features(kube: Kube, implementation: Implementation) -> list[str]:
    """Return the names in `status.supportedFeatures` of a GatewayClass; an empty list means unknown."""
    found = kube.get(GATEWAY_CLASS, "", implementation) or {}
    return [str(feature["name"]) for feature in found.get("status", {}).get("supportedFeatures", [])]


def _install_definitions(kube: Kube) -> None:
    """Apply Envoy Gateway's own CRDs; on the server's side, for they are too large for kubectl's annotation."""
    files = [f"--filename={path}" for path in binaries.manifests("envoy-gateway")]
    kube.run("apply", "--server-side", "--field-manager=local-cluster", *files)
    kube.run("wait", "--for=condition=Established", *files, TIMEOUT)
