"""What a cluster has beyond the bare components, as Kubernetes objects: pure builders.

DNS and metrics are processes of the control plane (no image, no pod); Services with endpoints of our own make
them look to pods as they do in any cluster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.controlplane import DNS_PORT, METRICS_PORT
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Plan
from tests.cluster.worker import VOLUMES_PER_NODE

SYSTEM = "kube-system"
STORAGE_CLASS = "standard"
_VOLUME_SIZE = "20Gi"

Object = dict[str, Any]


def _service(name: str, address: str, ports: list[Object], cluster_ip: str | None = None) -> list[Object]:
    """Return a Service without a selector and the EndpointSlice that leads it to one address."""
    spec: Object = {"ports": ports}
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "conch-local-cluster"}
    targets = [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]} for p in ports]
    metadata = {"name": name, "namespace": SYSTEM}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-control-plane", "namespace": SYSTEM, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": targets,
        },
    ]


def dns(plan: Plan) -> list[Object]:
    """Return the Service of the cluster's DNS at its usual place."""
    ports = [
        {"name": "dns", "port": 53, "targetPort": DNS_PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": DNS_PORT, "protocol": "TCP"},
    ]
    return _service("kube-dns", str(plan.control), ports, str(plan.dns_service))


def metrics(plan: Plan, ca_bundle: str) -> list[Object]:
    """Return metrics-server's Service and the API that it serves; ``ca_bundle`` is base64."""
    ports = [{"name": "https", "port": 443, "targetPort": METRICS_PORT, "protocol": "TCP"}]
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": SYSTEM},
            "caBundle": ca_bundle,
        },
    }
    reader = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")},
        },
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    }
    return [*_service("metrics-server", str(plan.control), ports), api, reader]


def storage_class() -> Object:
    """Return the default StorageClass; volumes are made beforehand, and bound where their pod is scheduled."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volumes(plan: Plan, paths: ClusterPaths) -> list[Object]:
    """Return the volumes of all nodes, each a folder on its node."""
    return [
        _volume(f"{node.name}-volume-{index}", node.name, paths.node(node.name) / "volumes" / f"volume-{index}")
        for node in plan.nodes
        for index in range(VOLUMES_PER_NODE)
    ]


def _volume(name: str, node: str, path: Path) -> Object:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def fake_node(index: int) -> Object:
    """Return a node that only kwok attends to: pods bound to it are reported as running and ready."""
    name = f"fake-{index}"
    resources = {"cpu": "64", "memory": "512Gi", "pods": "1000", "nvidia.com/gpu": "8"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": f"zone-{index}",
                "type": "kwok",
            },
        },
        "status": {"capacity": resources, "allocatable": resources},
    }
