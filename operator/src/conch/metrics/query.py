"""Paths of the metrics API as queries. Pure.

The paths are those of `k8s.io/metrics` and of the reference adapter (kubernetes-sigs/custom-metrics-apiserver):
`namespaces/NS/RESOURCE/NAME/METRIC` of an object, or with `*` for NAME of all that a label selector selects, and
`namespaces/NS/metrics/METRIC` of a namespace as a whole.
"""

from dataclasses import dataclass
from typing import Final

from conch.api.metrics import METRICS_GROUP, METRICS_VERSION

ROOT: Final = f"/apis/{METRICS_GROUP}/{METRICS_VERSION}"

PODS: Final = "pods"
SERVICES: Final = "inferenceservices.conch.dev"
NAMESPACES: Final = "namespaces"
ALL: Final = "*"


@dataclass(frozen=True)
class MetricQuery:
    """One metric of one or more objects in a namespace."""

    resource: str  # PODS, SERVICES, or NAMESPACES
    namespace: str  # ALL only where the resource is NAMESPACES
    name: str  # ALL: all objects that the label selector selects
    metric: str

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of the SubjectAccessReview, the same as of the API server's own check of the path."""
        is_namespace = self.resource == NAMESPACES
        return {
            "group": METRICS_GROUP,
            "version": METRICS_VERSION,
            "verb": "get",
            "namespace": self.namespace,
            **(
                {"resource": "metrics", "name": self.metric}
                if is_namespace
                else {"resource": self.resource, "subresource": self.metric, "name": self.name}
            ),
        }


def parse_query(path: str) -> MetricQuery | None:
    """Return the query of a path below ROOT; None if the path is not one of these.

    >>> parse_query("namespaces/ml/pods/*/triton_pending_requests")
    MetricQuery(resource='pods', namespace='ml', name='*', metric='triton_pending_requests')
    >>> parse_query("namespaces/ml/metrics/triton_pending_requests")
    MetricQuery(resource='namespaces', namespace='ml', name='ml', metric='triton_pending_requests')
    >>> parse_query("nodes/n/triton_pending_requests") is None
    True
    """
    match path.strip("/").split("/"):
        case ["namespaces", namespace, "metrics", metric]:
            return MetricQuery(NAMESPACES, namespace, namespace, metric)
        case ["namespaces", namespace, (("pods" | "inferenceservices.conch.dev") as resource), name, metric]:
            return MetricQuery(resource, namespace, name, metric)
        case _:
            return None
