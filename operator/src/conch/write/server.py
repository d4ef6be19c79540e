"""Calls to the API server, with JSON objects in and out.

kubernetes_asyncio handles credentials and their renewal, TLS and connection pools. Its generated models are not used:
the pure packages and server-side apply work with plain manifests.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Self

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import ApiException
from prometheus_client import Counter

from conch.api.kinds import Kind, Ref
from conch.api.text import clean
from conch.observe.fields import mappings
from conch.write.encoding import encode
from conch.write.errors import CallError, describe_no_answer, read_error, read_object
from conch.write.kubeconfig import load_kubeconfig
from conch.write.session import drop_trust, find_proxy

# The charset is the default. With it kubernetes_asyncio sends the bytes of `encode` as they are; without it, it makes
# JSON of its own, with escapes that YAML does not know.
APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
MERGE: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_TIMEOUT: Final = 30  # seconds, for a call

_calls = Counter("conch_api_calls", "Calls to the API server.", ["verb", "resource", "code"])


class Server:
    """A connection to the API server, from a pod's service account or the user's kubeconfig."""

    def __init__(
        self, configuration: Configuration, connections: int = 32, write_seconds: Callable[[], float] | None = None
    ) -> None:
        """Connect.

        Args:
            configuration: address and credentials.
            connections: the largest number of connections; 0: any number.
            write_seconds: how long writes are allowed from now on. At 0 or less no write is sent; None: always allowed.
        """
        configuration.connection_pool_maxsize = connections
        configuration.proxy = configuration.proxy or find_proxy(configuration.host or "")
        self._write_seconds = write_seconds
        try:
            self.client = ApiClient(configuration)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            problem = f"the certificates or the key for {configuration.host} cannot be used: {error}"
            raise CallError(0, "NoCluster", f"{problem}; correct them in the kubeconfig") from error
        rest = self.client.rest_client
        rest.pool_manager = drop_trust(rest.pool_manager)
        self.host = configuration.host or ""
        self.client.user_agent = f"conch/{version('conch')}"  # for audit logs
        if write_seconds is not None:
            self.client.rest_client.pool_manager.trace_configs.append(self._fence())

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, connections: int = 32, write_seconds: Callable[[], float] | None = None
    ) -> Self:
        """Connect with the pod's service account, or else with the kubeconfig.

        Raises:
            CallError: there is neither.
        """
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await load_kubeconfig(configuration, kubeconfig)
        return cls(configuration, connections, write_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()

    async def apply(self, kind: Kind, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Apply a whole object, server-side. `force`: its fields are taken over from other managers."""
        meta = body["metadata"]
        query = [("fieldManager", manager), ("force", "true")]
        path = kind.path(meta["namespace"], meta["name"])
        return await self._call("PATCH", "apply", kind, path, query, body, APPLY)

    async def apply_new(self, kind: Kind, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Apply an object that must not exist, server-side; 409 if it does (`is_changed`).

        A server-side apply creates what does not exist, and compares the resourceVersion only with one that does: no
        object has that of etcd's first revision.
        """
        return await self.apply(kind, {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}, manager)

    async def apply_status(self, kind: Kind, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Apply an object's status subresource, server-side."""
        meta = body["metadata"]
        query = [("fieldManager", manager), ("force", "true")]
        path = kind.path(meta["namespace"], meta["name"]) + "/status"
        return await self._call("PATCH", "apply", kind, path, query, body, APPLY)

    async def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object; 409 if it is there."""
        path = kind.path(body["metadata"].get("namespace", ""))
        query = [("dryRun", "All")] if dry_run else []
        return await self._call("POST", "create", kind, path, query, body, "application/json")

    async def replace(
        self, kind: Kind, body: Mapping[str, Any], manager: str, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Replace an object as it was read; 409 if it has been written since, by its resourceVersion."""
        meta = body["metadata"]
        path = kind.path(meta["namespace"], meta["name"])
        query = build_query(manager, dry_run=dry_run)
        return await self._call("PUT", "update", kind, path, query, body, "application/json")

    async def delete(self, namespace: str, ref: Ref, uid: str | None = None) -> None:
        """Delete an object, of this uid if one is given. An object that is gone already, or replaced, is no error.

        Background propagation: its dependants follow by the garbage collector.
        """
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid} if uid else {},
            "propagationPolicy": "Background",
        }
        path = ref.kind.path(namespace, ref.name)
        try:
            await self._call("DELETE", "delete", ref.kind, path, [], body, "application/json")
        except CallError as error:
            if not (error.is_not_found or error.is_replaced):
                raise

    async def get(self, namespace: str, ref: Ref) -> dict[str, Any] | None:
        """Return an object; None if there is none. An unknown kind is an error (404 without a reason)."""
        try:
            return await self._call("GET", "get", ref.kind, ref.kind.path(namespace, ref.name), [], None, "")
        except CallError as error:
            if error.is_not_found and error.reason == "NotFound":
                return None
            raise

    async def merge(self, namespace: str, ref: Ref, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Change some fields of an object (RFC 7386); 409 if `body` names a resourceVersion or uid that it has not."""
        path = ref.kind.path(namespace, ref.name)
        return await self._call("PATCH", "patch", ref.kind, path, [("fieldManager", manager)], body, MERGE)

    async def metadata(self, namespace: str, ref: Ref) -> dict[str, Any] | None:
        """The metadata of an object, or None if there is none."""
        path = ref.kind.path(namespace, ref.name)
        try:
            return await self._call("GET", "get", ref.kind, path, [], None, "", METADATA_ONLY)
        except CallError as error:
            if error.is_not_found:
                return None
            raise

    async def check_list(self, kind: Kind, namespace: str = "", name: str = "") -> None:
        """List at most one object of a kind; with a name, only that one, which needs the permission for it alone.

        Raises:
            CallError: 403, the permission is missing; 404, the cluster does not serve the kind; or another one.
        """
        query = [("limit", "1"), *([("fieldSelector", f"metadata.name={name}")] if name else [])]
        await self._call("GET", "list", kind, kind.path(namespace), query, None, "", METADATA_LIST)

    async def serves(self, kind: Kind) -> bool:
        """Return whether the cluster serves a kind: a CRD may not be installed.

        Raises:
            CallError: it is not certain. That discovery does not know the kind's API is not enough: a proxy before the
                API server may answer 404 to everything. The list of all APIs must lack it.
        """
        try:
            answer = await self._call("GET", "discover", kind, kind.home, [], None, "")
        except CallError as error:
            if not error.is_not_found:
                raise
            groups = mappings((await self._call("GET", "discover", kind, "/apis", [], None, "")).get("groups"))
            versions = [version.get("groupVersion") for group in groups for version in mappings(group.get("versions"))]
            if "/" not in kind.api_version or not versions or kind.api_version in versions:
                raise
            return False
        return any(resource.get("name") == kind.plural for resource in mappings(answer.get("resources")))

    @asynccontextmanager
    async def stream(  # noqa: PLR0917  all of a request
        self,
        verb: str,
        kind: Kind,
        path: str,
        query: list[tuple[str, str]],
        accept: str,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Send a GET request; yield the body of its answer, of which nothing has been read.

        Raises:
            CallError: the API server refuses or does not answer, or the connection breaks while the body is read.
        """
        try:
            answer = await self.client.call_api(
                path,
                "GET",
                query_params=query,
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limits,
            )
            async with answer:
                _calls.labels(verb, kind.plural, str(answer.status)).inc()
                if answer.status >= 300:
                    raise read_error(answer.status, await answer.read())
                yield answer.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _calls.labels(verb, kind.plural, "none").inc()
            raise CallError(0, "Unreachable", describe_no_answer(self.host, error)) from error
        except config.ConfigException as error:  # a credential plugin, when it is time for a new token
            raise CallError(0, "NoCredentials", f"no credentials for the API server: {clean(str(error))}") from error

    def _seconds_to_write(self) -> float | None:
        """Return how long writes are allowed; None: always.

        Raises:
            CallError: they are not allowed.
        """
        seconds = None if self._write_seconds is None else self._write_seconds()
        if seconds is not None and seconds <= 0:
            raise CallError(0, "NotLeading", "not sent: another replica may be the leader")
        return seconds

    def _fence(self) -> aiohttp.TraceConfig:
        """Return a trace that checks each write again once it has a connection: the process may have been stopped."""

        async def begin(_session: object, context: SimpleNamespace, request: aiohttp.TraceRequestStartParams) -> None:
            context.method = request.method

        async def check(_session: object, context: SimpleNamespace, _parameters: object) -> None:
            if context.method != "GET":
                self._seconds_to_write()

        fence = aiohttp.TraceConfig()
        fence.on_request_start.append(begin)
        fence.on_connection_reuseconn.append(check)
        fence.on_connection_create_end.append(check)
        fence.freeze()
        return fence

    async def _call(  # noqa: PLR0917  all of a request
        self,
        method: str,
        verb: str,
        kind: Kind,
        path: str,
        query: list[tuple[str, str]],
        body: Mapping[str, Any] | None,
        content: str,
        accept: str = "application/json",
    ) -> dict[str, Any]:
        # A write is sent within these seconds or not at all; its answer may come later, as behind a slow webhook.
        connect = None if method == "GET" else self._seconds_to_write()
        headers = {"Accept": accept} | ({"Content-Type": content} if content else {})
        try:
            answer = await self.client.call_api(
                path,
                method,
                query_params=query,
                header_params=headers,
                body=encode(body) if content == APPLY and body is not None else body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(total=_TIMEOUT, connect=connect),
            )
            text = await answer.read()
            status = answer.status
        except ApiException as error:
            text, status = error.body or b"", int(error.status or 0)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _calls.labels(verb, kind.plural, "none").inc()
            raise CallError(0, "Unreachable", describe_no_answer(self.host, error)) from error
        except config.ConfigException as error:  # a credential plugin, when it is time for a new token
            raise CallError(0, "NoCredentials", f"no credentials for the API server: {clean(str(error))}") from error
        _calls.labels(verb, kind.plural, str(status)).inc()
        if status >= 300:
            raise read_error(status, text)
        return read_object(self.host, status, text)


def build_query(manager: str, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Return the parameters of a write that is no apply; a dry run is as strict as that of `kubectl apply`."""
    strict = [("dryRun", "All"), ("fieldValidation", "Strict")]
    return [("fieldManager", manager), *(strict if dry_run else [])]
