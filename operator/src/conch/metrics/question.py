"""What a path of the metrics API asks for. Pure.

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
class Question:
    """One metric of one or more objects of a namespace."""

    resource: str  # PODS, SERVICES, or NAMESPACES
    namespace: str  # ALL only where the resource is NAMESPACES
    name: str  # ALL: what the selector selects
    metric: str

    @property
    def attributes(self) -> dict[str, str]:
        """What a SubjectAccessReview is asked about: the same words as the API server's own check of the path."""
        whole = self.resource == NAMESPACES
        return {
            "group": METRICS_GROUP,
            "version": METRICS_VERSION,
            "verb": "get",
            "namespace": self.namespace,
            **(
                {"resource": "metrics", "name": self.metric}
                if whole
                else {"resource": self.resource, "subresource": self.metric, "name": self.name}
            ),
        }


def question(path: str) -> Question | None:
    """Return what a path below ROOT asks; None if it asks nothing that is known here.

    >>> question("namespaces/ml/pods/*/triton_pending_requests")
    Question(resource='pods', namespace='ml', name='*', metric='triton_pending_requests')
    >>> question("namespaces/ml/metrics/triton_pending_requests")
    Question(resource='namespaces', namespace='ml', name='ml', metric='triton_pending_requests')
    >>> question("nodes/n/triton_pending_requests") is None
    True
    """
    match path.strip("/").split("/"):
        case ["namespaces", namespace, "metrics", metric]:
            return Question(NAMESPACES, namespace, namespace, metric)
        case ["namespaces", namespace, (("pods" | "inferenceservices.conch.dev") as resource), name, metric]:
            return Question(resource, namespace, name, metric)
        case _:
            return None
