"""A port of this machine that leads to the ready pods of a Service, through the API server.

As `kubectl port-forward`, but each connection has a stream of its own and goes to one of the pods that are ready at
that moment, as through the Service. kubectl sends all of them to one pod through one stream, and ends with it as soon
as the pod closes one connection while something is written to it, which Triton does every four seconds over gRPC.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp

from conch.api.kinds import ENDPOINT_SLICE
from conch.api.names import LABEL_SERVICE_NAME
from conch.cli.cluster import Cluster
from conch.cli.options import CommandError
from conch.write.errors import CallError

_REFRESH_SECONDS: Final = 1.0
_CHUNK: Final = 64 * 1024  # bytes
_DATA, _ERROR = 0, 1  # the channels of a port; the first message of each is the port's number
_HERE: Final = "127.0.0.1"
_FOR_ALL_PODS: Final = frozenset({0, 401, 403})  # HTTP statuses that do not depend on the pod; 0: no answer


class Forward:
    """Forwards connections to the ready pods of a Service, in turn."""

    def __init__(self, cluster: Cluster, service: str, port: int) -> None:
        """Forward to this port of the pods."""
        self.error = ""  # why the API server did not forward the last connection; empty: it did, or no pod is ready
        self._cluster, self._service, self._port = cluster, service, port
        self._pods: list[str] = []
        self._turn = itertools.count()
        self._open: set[asyncio.Task[Any]] = set()

    async def refresh(self) -> None:
        """Read the EndpointSlices.

        Raises:
            CallError: the API server does not return them.
        """
        slices = await self._cluster.server.list(
            ENDPOINT_SLICE, self._cluster.namespace, f"{LABEL_SERVICE_NAME}={self._service}"
        )
        self._pods = ready_pods(slices)

    async def keep_fresh(self) -> None:
        """Read the EndpointSlices each second; a failed read leaves the pods as they are."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            with contextlib.suppress(CallError):
                await self.refresh()

    async def connect(self) -> aiohttp.ClientWebSocketResponse | None:
        """Open a connection to the next pod, or the one after it; None without a ready pod.

        Raises:
            CallError: the API server forwards to none of them.
        """
        pods, first, last = self._pods, next(self._turn), None
        for place in range(len(pods)):
            pod = pods[(first + place) % len(pods)]
            try:
                found = await self._cluster.server.connect_to_pod(self._cluster.namespace, pod, self._port)
            except CallError as error:
                last = None if error.is_not_found else error
                if error.code in _FOR_ALL_PODS:
                    break
            else:
                self.error = ""
                return found
        if last is not None:
            self.error = last.message
            raise last
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it; the protocol cannot close one direction alone."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio's server runs this in a task
        self._open.add(task)
        try:
            with contextlib.suppress(CallError, OSError):
                if stream := await self.connect():
                    await _forward(stream, reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@contextlib.asynccontextmanager
async def open_forward(cluster: Cluster, service: str, port: int) -> AsyncIterator[tuple[str, Forward]]:
    """Yield host:port of this machine and the forwarder behind it.

    Raises:
        CallError: the API server refuses the forward, or does not return the EndpointSlices.
        CommandError: no pod is ready.
    """
    forward = Forward(cluster, service, port)
    await forward.refresh()
    stream = await forward.connect()  # reports a missing right before the first request
    if stream is None:
        raise CommandError(f"no EndpointSlice of Service {service} lists a ready pod")
    await stream.close()
    server = await asyncio.start_server(forward.serve, _HERE, 0)
    refreshing = asyncio.create_task(forward.keep_fresh())
    try:
        yield f"{_HERE}:{server.sockets[0].getsockname()[1]}", forward
    finally:
        refreshing.cancel()
        server.close()
        await forward.close()


def ready_pods(slices: list[dict[str, Any]]) -> list[str]:
    """Return the names of the pods that EndpointSlices list as ready; a condition that is absent means ready."""
    return sorted(
        {
            endpoint["targetRef"]["name"]
            for each in slices
            for endpoint in each.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
            and "name" in (endpoint.get("targetRef") or {})
        }
    )


async def _forward(
    stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    directions = [asyncio.create_task(_send(stream, reader)), asyncio.create_task(_receive(stream, writer))]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in directions:
            task.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        await stream.close()


async def _send(stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await stream.send_bytes(bytes([_DATA]) + data)


async def _receive(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    has_begun = False
    async for message in stream:
        if not isinstance(message.data, bytes) or message.data[:1] == bytes([_ERROR]):
            if len(message.data) > 3:  # more than the port's number: the kubelet reports an error
                return
        elif has_begun:
            writer.write(message.data[1:])
            await writer.drain()
        else:
            has_begun = True
