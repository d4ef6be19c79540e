"""Pool of Triton's own clients, over gRPC or HTTP, with their own connections.

A Service balances connections, not requests: one connection for a whole run would load one pod, and a new pod would get
no requests. So several clients send the requests in turn, and each is replaced after some seconds.
"""

import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio

from conch.cli.loadtest.options import Protocol
from conch.cli.loadtest.tensors import Request

_CLIENTS: Final = 16
_SECONDS: Final = 10.0  # lifetime of a client
_LARGEST: Final = 2**31 - 1
# The parameters of a request for which tritonclient has arguments.
_ARGUMENTS: Final = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout"}
_IGNORED: Final = {"binary_data_output"}  # the client always requests binary outputs


@dataclass(frozen=True)
class Target:
    """A model, and its address."""

    protocol: Protocol
    address: str  # host:port, with HTTP perhaps a path
    model: str
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 10.0  # timeout of a request

    def create_client(self) -> Any:
        """Return a client with its own connections."""
        if self.protocol == "http":
            return over_http_aio.InferenceServerClient(
                self.address, conn_limit=0, conn_timeout=self.seconds, ssl=self.tls
            )
        options: list[tuple[str, Any]] = [
            # Without it all channels of a process to one address share one connection.
            ("grpc.use_local_subchannel_pool", 1),
            # The service itself is measured; HTTP uses no proxy either.
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_send_message_length", _LARGEST),
            ("grpc.max_receive_message_length", _LARGEST),
        ]
        options += [("grpc.default_authority", value) for name, value in self.headers.items() if name.lower() == "host"]
        return over_grpc_aio.InferenceServerClient(self.address, ssl=self.tls, channel_args=options)

    @property
    def metadata(self) -> dict[str, str]:
        """The headers of each call; gRPC has the host name elsewhere."""
        return {
            name: value for name, value in self.headers.items() if self.protocol == "http" or name.lower() != "host"
        }


async def read_model(target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's metadata and its configuration. Raises what tritonclient raises."""
    async with target.create_client() as client:
        # Over gRPC tritonclient returns a message, or JSON on request.
        as_json: dict[str, Any] = (
            {"as_json": True, "client_timeout": target.seconds} if target.protocol == "grpc" else {}
        )
        metadata = await client.get_model_metadata(target.model, headers=target.metadata, **as_json)
        config = await client.get_model_config(target.model, headers=target.metadata, **as_json)
        return metadata, config.get("config", config)


async def is_ready(target: Target) -> bool:
    """Return whether the model is ready at that address. Raises what tritonclient raises without an answer."""
    async with target.create_client() as client:
        timeout: dict[str, Any] = {"client_timeout": target.seconds} if target.protocol == "grpc" else {}
        return bool(await client.is_model_ready(target.model, headers=target.metadata, **timeout))


class ClientPool:
    """Several clients that send the requests in turn."""

    def __init__(self, target: Target, requests: Sequence[Request], *, sequences: bool, size: int = _CLIENTS) -> None:
        """With `sequences`, each request is a sequence of its own: a model with sequence batching requires it."""
        library = over_http if target.protocol == "http" else over_grpc
        self._target = target
        self._requests = itertools.cycle(
            [(_build_inputs(library, each), _build_options(each.parameters)) for each in requests]
        )
        self._sequence = itertools.count(1) if sequences else None
        self._clients = [_Client(target.create_client(), _SECONDS * (place + 1) / size) for place in range(size)]
        self._turn = itertools.cycle(range(size))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for entry in self._clients:
            await entry.client.close()

    async def send(self) -> None:
        """Send the next request. Raises what tritonclient raises where it is not answered."""
        inputs, options = next(self._requests)
        if self._sequence is not None:
            options = {"sequence_id": next(self._sequence), "sequence_start": True, "sequence_end": True, **options}
        if self._target.protocol == "grpc":
            options = {**options, "client_timeout": self._target.seconds}
        async with self._next() as client:
            await client.infer(self._target.model, inputs, headers=self._target.metadata, **options)

    @asynccontextmanager
    async def _next(self) -> AsyncIterator[Any]:
        place = next(self._turn)
        entry = self._clients[place]
        if entry.until <= time.monotonic():
            self._clients[place] = new = _Client(self._target.create_client(), _SECONDS)
            await entry.retire()
            entry = new
        async with entry.use() as client:
            yield client


class _Client:
    """One client, closed when it is retired and its last request has ended."""

    def __init__(self, client: Any, seconds: float) -> None:
        self.client = client
        self.until = time.monotonic() + seconds
        self._busy = 0
        self._retired = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        self._busy += 1
        try:
            yield self.client
        finally:
            self._busy -= 1
            if self._retired and not self._busy:
                await self.client.close()

    async def retire(self) -> None:
        self._retired = True
        if not self._busy:
            await self.client.close()


def _build_inputs(library: Any, request: Request) -> list[Any]:
    found = []
    for each in request.inputs:
        value = library.InferInput(each.name, list(each.tensor.shape), each.datatype)
        value.set_data_from_numpy(each.tensor)
        found.append(value)
    return found


def _build_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's parameters as tritonclient takes them."""
    named = {name: value for name, value in parameters.items() if name in _ARGUMENTS}
    others = {name: value for name, value in parameters.items() if name not in _ARGUMENTS | _IGNORED}
    return {**named, **({"parameters": others} if others else {})}
