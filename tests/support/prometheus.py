"""A real Prometheus in the cluster, for gates whose bound is a query."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.cluster import images
from tests.support.kube import Object
from tests.support.place import Place
from tests.support.wait import TIMEOUT

MANIFEST: Final = Path(__file__).with_name("prometheus.yaml")
SCRIPT: Final = Path(__file__).with_name("prometheus_targets.py")
PORT: Final = 9090

_IMAGE: Final = "prometheus"


def deploy(place: Place, namespace: str) -> str:
    """Start Prometheus in a namespace that exists; return its URL as pods reach it, once it answers queries.

    It reads the ports named `metrics` of all pods of the cluster; a series has the labels `namespace` and `pod`,
    and the pod's own labels (`app.kubernetes.io/name` becomes `app_kubernetes_io_name`). Where the cluster is not
    ours, its nodes must have the image.
    """
    if place.local is not None:
        images.build([_IMAGE])
        place.local.load(_IMAGE)
    place.kube.apply([_reader(namespace), _script()], namespace)
    place.kube.apply(MANIFEST, namespace)
    place.kube.run("rollout", "status", "deployment/prometheus", f"--namespace={namespace}", TIMEOUT)
    return f"http://prometheus.{namespace}.svc:{PORT}"


def _reader(namespace: str) -> Object:
    """Let the server of this namespace see the pods of all; the built-in role `view` is enough."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"prometheus-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
    }


def _script() -> Object:
    """What finds the pods; the manifest runs it beside the server."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "prometheus-targets"},
        "data": {"targets.py": SCRIPT.read_text()},
    }
