"""The API server's validation of a service, and the object that it stores."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from typing import Any

import yaml
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException

from conch.api import names
from conch.api.crd import crd

NAMESPACE = "default"
_RESOURCE = (names.GROUP, names.VERSION, NAMESPACE, names.PLURAL)
_APPLY = "application/apply-patch+yaml"

MINIMAL = """
apiVersion: conch.dev/v1alpha1
kind: InferenceService
metadata: {name: magika}
spec:
  predictor:
    model:
      modelFormat: {name: onnx}
      storageUri: s3://models/magika
"""


def service(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the smallest service with `changes` merged over it."""
    smallest: dict[str, Any] = merged(yaml.safe_load(MINIMAL), changes)
    return smallest


def merged(base: Any, over: Any) -> Any:
    """Merge maps; anything else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base.get(key), value) for key, value in over.items()}
    return copy.deepcopy(over)


class Server:
    """The API server, spoken to as kubectl does."""

    def __init__(self, connection: client.ApiClient) -> None:
        # Any: the client's stubs do not know _content_type, which server-side apply needs.
        self._objects: Any = client.CustomObjectsApi(connection)

    async def install(self) -> None:
        """Apply the CRD that the types make, and wait until the server validates by it.

        The server takes up a changed CRD a moment after it has stored it, and reports no moment. So a
        rule is added that refuses one name, made of the CRD's hash: once it is refused, the CRD is in force.
        """
        wanted = crd()
        mark = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:20]
        schema = wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["x-kubernetes-validations"].append(
            {"rule": f"self.metadata.name != 'mark-{mark}'", "message": "this CRD is in force"}
        )
        definitions = ("apiextensions.k8s.io", "v1", "customresourcedefinitions", names.CRD_NAME)
        await self._objects.patch_cluster_custom_object(
            *definitions, wanted, field_manager="tests", force=True, _content_type=_APPLY
        )
        probe = service({"metadata": {"name": f"mark-{mark}"}})
        deadline = asyncio.get_running_loop().time() + 30
        while "this CRD is in force" not in (answer := await self.refusal(probe)):
            assert asyncio.get_running_loop().time() < deadline, answer or "the old CRD stays in force"
            await asyncio.sleep(0.05)

    async def create(
        self, manifest: dict[str, Any], *, namespace: str = NAMESPACE, dry_run: bool = True
    ) -> dict[str, Any]:
        """Create the service and return what the server makes of it; raises ApiException."""
        created: dict[str, Any] = await self._objects.create_namespaced_custom_object(
            names.GROUP,
            names.VERSION,
            namespace,
            names.PLURAL,
            manifest,
            dry_run="All" if dry_run else None,
            field_validation="Strict",
        )
        return created

    async def refusal(self, manifest: dict[str, Any], *, namespace: str = NAMESPACE, dry_run: bool = True) -> str:
        """Return the sentence of the refusal, empty when the server takes it."""
        try:
            await self.create(manifest, namespace=namespace, dry_run=dry_run)
        except ApiException as error:
            if error.status == 404:
                return "the CRD is not served yet"
            return str(json.loads(error.body or "{}")["message"])
        return ""

    async def write_status(self, name: str, status: dict[str, Any]) -> dict[str, Any]:
        """Apply the status as the operator does, and return the service."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name},
            "status": status,
        }
        written: dict[str, Any] = await self._objects.patch_namespaced_custom_object_status(
            *_RESOURCE, name, body, field_manager=names.FIELD_MANAGER, force=True, _content_type=_APPLY
        )
        return written

    async def scale(self, name: str) -> dict[str, Any]:
        """Return the scale subresource; raises ApiException when there is none."""
        found: dict[str, Any] = await self._objects.get_namespaced_custom_object_scale(*_RESOURCE, name)
        return found

    async def delete(self, name: str) -> None:
        await self._objects.delete_namespaced_custom_object(*_RESOURCE, name)
