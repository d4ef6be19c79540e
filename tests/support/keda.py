"""A real KEDA in the cluster: what makes pods of triggers, and takes the last one."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster import binaries, images
from tests.cluster.credentials import authority, issue
from tests.support.kube import Object
from tests.support.place import Place
from tests.support.wait import TIMEOUT

NAMESPACE: Final = "keda"
MANIFEST: Final = Path(__file__).with_name("keda.yaml")
_IMAGE: Final = "keda"
_OPERATOR: Final = "keda-operator"
_METRICS: Final = "keda-metrics-apiserver"
_CERTIFICATES: Final = "kedaorg-certs"
_API: Final = "v1beta1.external.metrics.k8s.io"


@contextlib.contextmanager
def deploy(place: Place) -> Iterator[None]:
    """Bring KEDA up on the local cluster; take it away afterwards, lest its APIService stays without a server.

    Its CRDs stay. The image is built on first use: for it KEDA is compiled, 7 to 11 minutes once.

    Raises:
        ValueError: the cluster is the user's own, and so is its KEDA.
    """
    if place.local is None:
        raise ValueError("KEDA is deployed on the local cluster only")
    images.build([_IMAGE])
    place.local.load(_IMAGE)
    place.namespace(NAMESPACE)
    files = [f"--filename={path}" for path in binaries.manifests("keda")]
    place.kube.run("apply", "--server-side", "--field-manager=local-cluster", *files)
    place.kube.run("wait", "--for=condition=Established", *files, TIMEOUT)
    place.kube.apply(_registration(), NAMESPACE)
    place.kube.run("apply", f"--filename={MANIFEST}")  # one of its roles is at home in kube-system
    try:
        for name in (_OPERATOR, _METRICS):
            place.kube.run("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}", TIMEOUT)
        place.kube.run("wait", "--for=condition=Available", f"apiservice/{_API}", TIMEOUT)
        yield
    finally:
        place.kube.run("delete", "apiservice", _API, "--ignore-not-found")
        place.kube.run("delete", "namespace", NAMESPACE, TIMEOUT)


def _registration() -> list[Object]:
    """The certificates of both programs, and where the API server finds the one that it calls."""
    ca = authority("keda")
    hosts = [f"{name}.{NAMESPACE}.{end}" for name in (_OPERATOR, _METRICS) for end in ("svc", "svc.cluster.local")]
    pair = issue(ca, _OPERATOR, names=hosts)
    files = {"ca.crt": ca.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _CERTIFICATES, "namespace": NAMESPACE},
        "data": data,
    }
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": _API},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": data["ca.crt"],
            "service": {"name": _METRICS, "namespace": NAMESPACE},
        },
    }
    return [secret, service]
