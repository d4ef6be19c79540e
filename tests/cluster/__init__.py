"""A real Kubernetes cluster on one bare machine, for the tests and the demo.

The package exists because the tests must meet real API servers, kubelets and container runtimes on machines
that have no container engine and reach nothing but package registries. Nothing here knows what Conch is:
the operator, its chart and its resources are installed by the tests, as a user would install them.
"""

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
