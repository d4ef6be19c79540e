"""The BackendTrafficPolicy of a service: what only Envoy Gateway does, and the Gateway API has no field for.

Source: gateway.envoyproxy.io, the API reference (v1alpha1) and the page "Load Balancing".
"""

from conch.api import InferenceService
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, HTTP_ROUTE
from conch.api.meta import Manifest, child
from conch.api.traffic import ConsistentHash


def policy_name(service: str) -> str:
    """Return the name of a service's policy: not the service's own, which people may give to a policy of theirs."""
    return f"{service}-traffic"


def backend_traffic_policy(service: InferenceService, hashed: ConsistentHash | None) -> Manifest:
    """Build the policy of the service's route; what a policy of the Gateway says besides holds on (mergeType).

    While no pod is ready, requests are answered with 503: Envoy would send them to pods that are not.

    Args:
        service: the service as a whole.
        hashed: its spec.traffic.consistentHash, where the Gateways can enforce it.
    """
    target = {"group": HTTP_ROUTE.group, "kind": HTTP_ROUTE.name, "name": service.metadata.name}
    spec: Manifest = {"targetRefs": [target], "mergeType": "StrategicMerge", "healthCheck": {"panicThreshold": 0}}
    if hashed is not None:
        by_header = {"type": "Header", "header": {"name": hashed.header}}
        spec["loadBalancer"] = {"type": "ConsistentHash", "consistentHash": by_header}
    return {**child(service, BACKEND_TRAFFIC_POLICY, policy_name(service.metadata.name)), "spec": spec}
