"""Calls of `kubectl conch` to the API server: lists, a dry run, an annotation, and connections to pods.

They are apart from `server.py`, which has only the operator's own calls. They use the user's permissions.
"""

import asyncio
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration

from conch.api.kinds import POD, Kind, Ref
from conch.api.text import clean
from conch.write.errors import CallError, describe_no_answer
from conch.write.kubeconfig import load_kubeconfig
from conch.write.server import APPLY, Server, build_query

_JSON: Final = "application/json"
# Protocol of a port-forward: a message begins with the byte of its channel; a port has two, for data and error.
PORT_FORWARD: Final = "v4.channel.k8s.io"
_CONNECT_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1.0  # for the other side to agree that a connection is closed
# Namespace of the pod, where the command runs in a pod.
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class UserServer(Server):
    """A connection to the API server as the user, with the namespace that the user works in."""

    namespace: str = "default"

    @classmethod
    async def as_user(cls, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Connect as kubectl does: by the given kubeconfig, KUBECONFIG, the home's, or the pod's service account.

        Raises:
            CallError: there is none of them, or it has no such context.
        """
        configuration = Configuration()
        try:
            namespace = await load_kubeconfig(configuration, kubeconfig, context)
        except CallError:
            named = kubeconfig or context or os.environ.get("KUBECONFIG")
            found = None if named else _in_pod(configuration)
            if found is None:
                raise
            namespace = found
        server = cls(configuration, connections=0)  # any number: each connection to a pod has its own
        server.client.user_agent = f"kubectl-conch/{version('conch')}"
        server.namespace = namespace
        return server

    async def list(self, kind: Kind, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in a namespace, by label; none where the cluster does not serve the kind."""
        query = [("labelSelector", selector)]
        try:
            answer = await self._call("GET", "list", kind, kind.path(namespace), query, None, "")
        except CallError as error:
            if error.is_not_found:
                return []
            raise
        # The items of a list lack apiVersion and kind.
        head = {"apiVersion": kind.api_version, "kind": kind.name}
        return [{**head, **item} for item in answer.get("items") or ()]

    async def dry_run_create(self, kind: Kind, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Return an object as the API server would create it: a dry run."""
        path = kind.path(body["metadata"]["namespace"])
        return await self._call("POST", "create", kind, path, build_query(manager, dry_run=True), body, _JSON)

    async def annotate(
        self, kind: Kind, seen: Mapping[str, Any], name: str, value: str, manager: str
    ) -> dict[str, Any]:
        """Set one annotation of an object, by server-side apply; no other field changes its owner.

        The uid is included: an object that was deleted and created again meanwhile is a conflict, 409.
        """
        meta = {key: seen["metadata"][key] for key in ("name", "namespace", "uid")} | {"annotations": {name: value}}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}
        query = [*build_query(manager), ("force", "true")]
        return await self._call("PATCH", "apply", kind, kind.path(meta["namespace"], meta["name"]), query, body, APPLY)

    async def remove_annotation(self, kind: Kind, seen: Mapping[str, Any], name: str, manager: str) -> dict[str, Any]:
        """Remove an annotation of an object by a merge patch: an apply removes only fields of its own manager."""
        meta = {"uid": seen["metadata"]["uid"], "annotations": {name: None}}
        ref = Ref(kind, seen["metadata"]["name"])
        return await self.merge(seen["metadata"]["namespace"], ref, {"metadata": meta}, manager)

    async def connect_to_pod(self, namespace: str, pod: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """Return a connection to a port of a pod, through the API server; the caller closes it.

        Raises:
            CallError: 404, the pod is gone; 403, it needs `get` and `create` on `pods/portforward`; or another one.
        """
        client, headers = self.client.rest_client, {"User-Agent": str(self.client.user_agent)}
        url = f"{self.host}{POD.path(namespace, pod)}/portforward?ports={port}"
        try:
            await self.client.update_params_for_auth(headers, [], ["BearerToken"])
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await client.pool_manager.ws_connect(
                    url,
                    protocols=(PORT_FORWARD,),
                    headers=headers,
                    proxy=client.proxy,
                    proxy_headers=client.proxy_headers,
                    server_hostname=client.server_hostname,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            message = f"a connection to port {port} of pod {pod} is refused with HTTP status {error.status}"
            remedy = ": it requires get and create on pods/portforward" if error.status == 403 else ""
            raise CallError(error.status, "", f"{message}{remedy}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CallError(0, "Unreachable", describe_no_answer(self.host, error)) from error
        except config.ConfigException as error:
            raise CallError(0, "NoCredentials", f"no credentials for the API server: {clean(str(error))}") from error


def _in_pod(configuration: Configuration) -> str | None:
    """Set the credentials of the pod that this process runs in; return its namespace, None outside a pod."""
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        return None
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default"
