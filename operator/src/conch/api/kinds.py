"""Kinds that Conch reads and writes, and references to objects of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """A Kubernetes kind and its URL paths at the API server."""

    group: str  # "" is the core group
    version: str
    name: str
    plural: str

    @property
    def api_version(self) -> str:
        """`group/version`, as in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def home(self) -> str:
        """The URL path of the API that the kind belongs to."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the URL path of the collection (of a namespace, or of all), or of one object in it."""
        scope = f"/namespaces/{_segment(namespace)}" if namespace else ""
        path = f"{self.home}{scope}/{self.plural}"
        return f"{path}/{_segment(name)}" if name else path


INFERENCE_SERVICE: Final = Kind("conch.dev", "v1alpha1", "InferenceService", "inferenceservices")
CONTROLLER_REVISION: Final = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")
CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps")
SERVICE: Final = Kind("", "v1", "Service", "services")
DEPLOYMENT: Final = Kind("apps", "v1", "Deployment", "deployments")
AUTOSCALER: Final = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT: Final = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
DISRUPTION_BUDGET: Final = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
JOB: Final = Kind("batch", "v1", "Job", "jobs")
HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
BACKEND_TRAFFIC_POLICY: Final = Kind(
    "gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"
)
GATEWAY: Final = Kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
GATEWAY_CLASS: Final = Kind("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses")
REPLICA_SET: Final = Kind("apps", "v1", "ReplicaSet", "replicasets")
POD: Final = Kind("", "v1", "Pod", "pods")
ENDPOINT_SLICE: Final = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
EVENT: Final = Kind("events.k8s.io", "v1", "Event", "events")
NODE: Final = Kind("", "v1", "Node", "nodes")
RESOURCE_QUOTA: Final = Kind("", "v1", "ResourceQuota", "resourcequotas")
NAMESPACE: Final = Kind("", "v1", "Namespace", "namespaces")
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")

API_SERVICE: Final = Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices")
METRIC: Final = Kind("custom.metrics.k8s.io", "v1beta2", "MetricValueList", '"*"')  # whatever the object and metric

METADATA_ONLY: Final = frozenset({REPLICA_SET})  # watched as PartialObjectMetadata
# Each scales the Deployment with the same name.
SCALERS: Final = (AUTOSCALER, SCALED_OBJECT)
# Services refer to them, and do not own them. A GatewayClass belongs to the cluster, not to a namespace.
GATEWAYS: Final = (GATEWAY, GATEWAY_CLASS)
_BY_NAME: Final = {(kind.api_version, kind.name): kind for kind in list(globals().values()) if isinstance(kind, Kind)}


def _segment(name: str) -> str:
    """Return a name as a part of a URL's path.

    Raises:
        ValueError: the name is not valid (apimachinery, IsValidPathSegmentName); the path would lead elsewhere.
    """
    if name in {".", ".."} or "/" in name or "%" in name:
        raise ValueError(f"{name!r} is no name of an object: expected neither '.', '..', '/' nor '%'")
    return quote(name, safe="")


class Ref(NamedTuple):
    """A reference to an object within a namespace."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name}/{self.name}"


class ServiceKey(NamedTuple):
    """A reference to an InferenceService: an item of the work queue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def kind_of(body: Mapping[str, Any]) -> Kind:
    """Return the kind of an object.

    Raises:
        KeyError: Conch does not know the kind.
    """
    return _BY_NAME[body["apiVersion"], body["kind"]]


def ref_of(body: Mapping[str, Any]) -> Ref:
    """Return the reference to an object within its namespace."""
    return Ref(kind_of(body), body["metadata"]["name"])
