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
from conch.cli.options import Refused
from conch.write.errors import CallError

_REFRESH_SECONDS: Final = 1.0
_CHUNK: Final = 64 * 1024  # bytes
_DATA, _ERROR = 0, 1  # the channels of a port; the first message of each is the port's number
_HERE: Final = "127.0.0.1"
_NOT_THE_PODS: Final = frozenset({0, 401, 403})  # what another pod would be refused with too; 0: no API server answers


class Forward:
    """The port, and what it knows of the pods behind it."""

    def __init__(self, cluster: Cluster, service: str, port: int) -> None:
        """Lead to this port of the pods of a Service."""
        self.lost = ""  # why the last connection could not be made, if that is the way's fault and not the pods'
        self._cluster, self._service, self._port = cluster, service, port
        self._pods: list[str] = []
        self._turn = itertools.count()
        self._open: set[asyncio.Task[Any]] = set()

    async def refresh(self) -> None:
        """Read which pods are ready.

        Raises:
            CallError: they cannot be read.
        """
        slices = await self._cluster.server.list(
            ENDPOINT_SLICE, self._cluster.namespace, f"{LABEL_SERVICE_NAME}={self._service}"
        )
        self._pods = ready_pods(slices)

    async def keep_fresh(self) -> None:
        """Read them again each second; what is known stays where that fails."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            with contextlib.suppress(CallError):
                await self.refresh()

    async def connect(self) -> aiohttp.ClientWebSocketResponse | None:
        """Open a connection to the pod whose turn it is, or the next one; None where no pod is ready.

        Raises:
            CallError: the way to the pods is closed.
        """
        pods, first, last = self._pods, next(self._turn), None
        for place in range(len(pods)):
            pod = pods[(first + place) % len(pods)]
            try:
                found = await self._cluster.server.connect_to_pod(self._cluster.namespace, pod, self._port)
            except CallError as error:
                last = None if error.gone else error
                if error.code in _NOT_THE_PODS:
                    break
            else:
                self.lost = ""
                return found
        if last is not None:
            self.lost = last.message
            raise last
        return None

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, until one of its ends closes it: one half alone cannot be closed."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  it is one that the server has started
        self._open.add(task)
        try:
            with contextlib.suppress(CallError, OSError):
                if stream := await self.connect():
                    await _carry(stream, reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def hang_up(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@contextlib.asynccontextmanager
async def open_forward(cluster: Cluster, service: str, port: int) -> AsyncIterator[tuple[str, Forward]]:
    """Yield host:port of this machine, as long as it is used.

    Raises:
        CallError: the user may not forward ports, or the pods cannot be read.
        Refused: no pod is ready.
    """
    forward = Forward(cluster, service, port)
    await forward.refresh()
    stream = await forward.connect()  # what is wrong with the way is told before anything is asked
    if stream is None:
        raise Refused(f"no EndpointSlice of Service {service} lists a ready pod")
    await stream.close()
    server = await asyncio.start_server(forward.carry, _HERE, 0)
    refreshing = asyncio.create_task(forward.keep_fresh())
    try:
        yield f"{_HERE}:{server.sockets[0].getsockname()[1]}", forward
    finally:
        refreshing.cancel()
        server.close()
        await forward.hang_up()


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


async def _carry(
    stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    ways = [asyncio.create_task(_send(stream, reader)), asyncio.create_task(_receive(stream, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ways:
            task.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await stream.close()


async def _send(stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await stream.send_bytes(bytes([_DATA]) + data)


async def _receive(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    begun = False
    async for message in stream:
        if not isinstance(message.data, bytes) or message.data[:1] == bytes([_ERROR]):
            if len(message.data) > 3:  # more than the port's number: the pod refused, or broke it off
                return
        elif begun:
            writer.write(message.data[1:])
            await writer.drain()
        else:
            begun = True
