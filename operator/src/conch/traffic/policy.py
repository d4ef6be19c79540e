"""The BackendTrafficPolicy of a service: features of Envoy Gateway without a field in the Gateway API.

Source: gateway.envoyproxy.io, the API reference (v1alpha1) and the page "Load Balancing".
"""

from conch.api import InferenceService
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, HTTP_ROUTE
from conch.api.meta import Manifest, child
from conch.api.traffic import ConsistentHash


def is_policy_required(service: InferenceService) -> bool:
    """Whether a field of the spec has no effect without the policy; else it is written on a best-effort basis."""
    return service.spec.traffic is not None and service.spec.traffic.consistent_hash is not None


def policy_name(service: str) -> str:
    """Return the name of a service's policy; not the service's name, which users give to policies of their own."""
    return f"{service}-traffic"


def backend_traffic_policy(service: InferenceService, consistent_hash: ConsistentHash | None) -> Manifest:
    """Build the policy of the service's route; mergeType keeps the other fields of a policy of the Gateway.

    panicThreshold 0: without a ready pod the answer is 503. By default Envoy then sends requests to pods that are not
    ready.

    Args:
        service: the service as a whole.
        consistent_hash: spec.traffic.consistentHash, if all Gateways can enforce it.
    """
    target = {"group": HTTP_ROUTE.group, "kind": HTTP_ROUTE.name, "name": service.metadata.name}
    spec: Manifest = {"targetRefs": [target], "mergeType": "StrategicMerge", "healthCheck": {"panicThreshold": 0}}
    if consistent_hash is not None:
        by_header = {"type": "Header", "header": {"name": consistent_hash.header}}
        spec["loadBalancer"] = {"type": "ConsistentHash", "consistentHash": by_header}
    return {**child(service, BACKEND_TRAFFIC_POLICY, policy_name(service.metadata.name)), "spec": spec}
