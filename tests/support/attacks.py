"""What a user with `edit` in one namespace can do to harm the operator, and so everybody's services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, INFERENCE_SERVICE, POD, SERVICE, Kind
from conch_contract import names
from tests.support import hostile_server
from tests.support.kube import Kube, KubectlError, Object
from tests.support.service import Service, is_ready
from tests.support.wait import until

DEEP = "the deep value"
LARGE = 940_000  # bytes; the API server takes 1 MiB in a ConfigMap
_LEVELS = 9980  # of the 10,000 that the API server stores
_FINALIZER = "example.com/kept"
_NOT_READY = "/tmp/not-ready"
_MODEL: Object = {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/magika"}


def put_large(kube: Kube, namespace: str, service: str, count: int, **meta: Any) -> None:
    """Create large ConfigMaps with the label of a service."""
    for number in range(count):
        head = {"generateName": "large-", "labels": {names.LABEL_SERVICE: service}, **meta}
        kube.create(CONFIG_MAP, {"metadata": head, "data": {"data": f"{number}".ljust(LARGE, "x")}}, namespace)


def put_small(kube: Kube, namespace: str, service: str, count: int, **meta: Any) -> None:
    """Create small ConfigMaps with the label of a service."""
    for _ in range(count):
        head = {"generateName": "small-", "labels": {names.LABEL_SERVICE: service}, **meta}
        kube.create(CONFIG_MAP, {"metadata": head}, namespace)


def held_by(service: Object) -> Object:
    """Return the metadata of an object with a service as its controller which no deletion removes.

    Conch deletes what it did not make, and a finalizer keeps it.
    """
    return {"ownerReferences": [owned_by(service)], "finalizers": [_FINALIZER]}


def release_all(kube: Kube, namespace: str) -> None:
    """Let the ConfigMaps go that a finalizer keeps."""
    for body in kube.list(CONFIG_MAP, namespace):
        if _FINALIZER in (body["metadata"].get("finalizers") or ()):
            kube.patch(CONFIG_MAP, namespace, body["metadata"]["name"], {"metadata": {"finalizers": None}})


def owned_by(service: Object) -> Object:
    """Return the owner reference by which an object names a service as its controller."""
    kind = {field: service[field] for field in ("apiVersion", "kind")}
    return {**kind, "name": service["metadata"]["name"], "uid": service["metadata"]["uid"], "controller": True}


def create_deep(kube: Kube, kind: Kind, namespace: str, name: str) -> None:
    """Create an object with labels of a child, whose managedFields are as deep as the API server takes them."""
    specs: dict[Kind, Object] = {
        INFERENCE_SERVICE: {"predictor": {"model": _MODEL}},
        SERVICE: {"ports": [{"port": 80}]},
        DEPLOYMENT: {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "registry.k8s.io/pause"}]},
            },
        },
    }
    fields = {"manager": "theirs", "operation": "Update", "apiVersion": kind.api_version, "fieldsType": "FieldsV1"}
    labels = {names.LABEL_SERVICE: "before", names.LABEL_REVISION: "before-1"}
    body = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, "labels": labels, "managedFields": [{**fields, "fieldsV1": DEEP}]},
        "spec": specs[kind],
    }
    deep = json.dumps(body).replace(json.dumps(DEEP), '{"f:a":' * _LEVELS + "{}" + "}" * _LEVELS)
    kube.run("create", f"--raw={kind.path(namespace)}", "--filename=-", stdin=deep)
    assert len(kube.run("get", f"--raw={kind.path(namespace, name)}")) > _LEVELS * 6


def get_refusal(kube: Kube, namespace: str, body: str) -> str:
    """Create an object; return why it is refused, or nothing.

    kubectl's and the API server's own objection to unknown fields is turned off: they are dropped then.
    """
    try:
        kube.run("create", "--validate=false", f"--namespace={namespace}", "--filename=-", stdin=body)
    except KubectlError as refusal:
        return str(refusal)
    return ""


def replace_pods(service: Service, revision: str, image: str) -> list[str]:
    """Have a revision consist of pods that answer the operator's requests with hostile texts; return their names.

    Pods that are ready get the labels of the revision's own. Its ReplicaSet adopts them and deletes its own ones, which
    are cheaper to delete. Then every second one, the first included, is made not ready: the operator requests the
    reports of those.
    """
    kube, namespace = service.kube, service.namespace
    there = service.ready_pods(revision)
    labels, own, count = there[0]["metadata"]["labels"], [pod["metadata"]["name"] for pod in there], len(there)
    hostile = [f"hostile-{number}" for number in range(count)]
    for name in hostile:
        kube.create(POD, _hostile_pod(name, image), namespace)

    def ready(name: str) -> bool:
        return is_ready(kube.get(POD, namespace, name) or {})

    until(lambda: all(map(ready, hostile)), "the hostile pods are ready")
    for name in own:
        kube.patch(POD, namespace, name, _cost(-1000))
    for name in hostile:
        kube.patch(POD, namespace, name, {"metadata": {"labels": labels, **_cost(1000)["metadata"]}})
    until(
        lambda: {pod["metadata"]["name"] for pod in service.pods(revision)} == set(hostile),
        "the revision consists of hostile pods",
        seen=lambda: [pod["metadata"]["name"] for pod in service.pods(revision)],
    )
    for name in hostile[::2]:
        kube.run("exec", name, f"--namespace={namespace}", "--", "touch", _NOT_READY)
    return hostile


def _cost(cost: int) -> Object:
    return {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": str(cost)}}}


def _hostile_pod(name: str, image: str) -> Object:
    program = Path(hostile_server.__file__).read_text()
    return {
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "hostile",
                    "image": image,
                    "command": ["python3", "-c", program, str(names.AGENT_PORT), str(names.METRICS_PORT)],
                    "readinessProbe": {"exec": {"command": ["test", "!", "-e", _NOT_READY]}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
