"""Continuous requests, light enough to share two cores with the cluster that they load.

Three kinds of client, each with its own count: gRPC channels that live as long as the load, HTTP with a
connection for each request, and HTTP connections that are kept open. Each client sends at a fixed rate;
one that is late skips no request, it only sends later. A failure is kept with its text and its moment.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from errno import EADDRNOTAVAIL, errorcode
from types import TracebackType
from typing import Any, Self

import aiohttp
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
from aiohttp import AddrInfoType

SECONDS = 30.0  # after which a request has failed
_STOP_SECONDS = 40.0
# Without it all channels of a process to one address share one connection, and one pod.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_OWN_PORTS = range(20_000, 30_000)  # below those that the kernel gives, and those of Services
_JSON_LENGTH = "Inference-Header-Content-Length"  # Triton's binary tensor extension of KServe's protocol v2


@dataclass(frozen=True)
class RepeatedRequest:
    """A request that clients repeat, and the check of its answer."""

    model: str
    input: str
    tensor: np.ndarray[Any, Any]
    output: str
    right: Callable[[np.ndarray[Any, Any]], bool]


@dataclass(frozen=True)
class Mix:
    """Clients of each kind, and what one client sends in a second."""

    grpc: int = 4
    fresh: int = 4
    kept: int = 2
    rate: float = 13.0


@dataclass(frozen=True)
class Failure:
    """A request without a right answer. Times are in seconds."""

    start: float  # of the request, since the start of the load
    lasted: float
    text: str


@dataclass
class Tally:
    """What one kind of client saw. Times are in seconds."""

    latencies: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Requests, answered or not."""
        return len(self.latencies) + len(self.failures)

    def __str__(self) -> str:
        """The count, the failures by their text, and how long answers took."""
        times = np.array(self.latencies or [0.0]) * 1e3
        took = f"p50 {np.percentile(times, 50):.0f} ms, p99 {np.percentile(times, 99):.0f} ms, max {times.max():.0f} ms"
        texts = Counter(failure.text for failure in self.failures)
        counts = "".join(f"; {count} x {text} ({self._moments(text)})" for text, count in texts.most_common(5))
        return f"{self.sent} sent, {len(self.failures)} failed, {took}{counts}"

    def _moments(self, text: str) -> str:
        """When the requests that failed with a text were sent, and how long they waited for it."""
        alike = [failure for failure in self.failures if failure.text == text]
        starts = [failure.start for failure in alike]
        longest = max(failure.lasted for failure in alike)
        return f"sent {min(starts):.2f} s to {max(starts):.2f} s after the start, failed within {longest:.2f} s"


Send = Callable[[], Awaitable[None]]


def with_own_port(address: AddrInfoType) -> socket.socket:
    """Return a socket for a connection that is kept, with a local port that no later connection gets.

    The kept connections of a pod that ends are reset. For ten seconds more the kernel's connection tracking sends
    what comes from such a port to the same address to that pod (nf_conntrack_tcp_timeout_close), and gives the port,
    which is free, to a new connection: the 3,137th after it, as the kernel counts. That one would be refused. Clients
    in a cluster are many, and have addresses of their own.
    """
    family, kind, protocol, *_ = address
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("", port))
        except OSError:
            made.close()
        else:
            return made
    raise OSError(EADDRNOTAVAIL, "all ports below those that the kernel gives are taken")


class Traffic:
    """Load on one Service, from entering `with` to leaving it, in a thread of its own."""

    def __init__(
        self,
        http: str,
        grpc: str,
        request: RepeatedRequest,
        mix: Mix | None = None,
        host: str = "",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.tallies = {kind: Tally() for kind in ("grpc", "fresh", "kept")}
        self.began, self.seconds = time.time(), 0.0
        self._http, self._grpc, self._request, self._mix = http, grpc, request, mix or Mix()
        self._host = host  # the Host header, where the address is a gateway's
        self._headers = dict(headers or {})  # what each request has besides
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_STOP_SECONDS)
        if error is None and self._error is not None:
            raise self._error

    @property
    def rate(self) -> float:
        """Requests a second over the whole time, all kinds together."""
        return self.sent / max(self.seconds, 1e-9)

    @property
    def sent(self) -> int:
        """Requests, answered or not."""
        return sum(tally.sent for tally in self.tallies.values())

    @property
    def failed(self) -> int:
        """Requests without a right answer."""
        return sum(len(tally.failures) for tally in self.tallies.values())

    def __str__(self) -> str:
        """The count of each kind."""
        lines = [f"{kind:6} {tally}" for kind, tally in self.tallies.items() if tally.sent]
        begun = time.strftime("%H:%M:%S", time.gmtime(self.began)) + f".{int(self.began % 1 * 10)}"
        return "\n".join([f"{self.rate:.0f} requests/s for {self.seconds:.0f} s from {begun}", *lines])

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001  raised where the `with` ends
            self._error = error

    async def _send_all(self) -> None:
        mix, began = self._mix, time.monotonic()
        self.began = time.time()
        single = aiohttp.TCPConnector(force_close=True, limit=0)
        async with (
            aiohttp.ClientSession(connector=single, timeout=aiohttp.ClientTimeout(SECONDS)) as fresh,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=with_own_port), timeout=aiohttp.ClientTimeout(SECONDS)
            ) as kept,
        ):
            clients: list[tuple[str, Send]] = [("fresh", self._over_http(fresh)) for _ in range(mix.fresh)]
            clients += [("kept", self._over_http(kept)) for _ in range(mix.kept)]
            authority = [("grpc.default_authority", self._host)] if self._host else []
            channels = [
                over_grpc_aio.InferenceServerClient(self._grpc, channel_args=[*_OWN_CONNECTION, *authority])
                for _ in range(mix.grpc)
            ]
            clients += [("grpc", self._over_grpc(channel)) for channel in channels]
            tasks = (self._client(kind, send, began, place) for place, (kind, send) in enumerate(clients))
            await asyncio.gather(*tasks)
            self.seconds = time.monotonic() - began
            for channel in channels:
                await channel.close()

    async def _client(self, kind: str, send: Send, began: float, place: int) -> None:
        """Send at the client's rate until the stop event is set; the clients' beats are spread over the period."""
        tally, period = self.tallies[kind], 1 / self._mix.rate
        due = began + period * (place % 10) / 10
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + period, time.monotonic() - 1)
            start = time.monotonic()
            try:
                await send()
            except Exception as error:  # noqa: BLE001  whatever it is, the user has no answer
                tally.failures.append(Failure(start - began, time.monotonic() - start, _text(error)))
            else:
                tally.latencies.append(time.monotonic() - start)

    def _over_http(self, session: aiohttp.ClientSession) -> Send:
        body, length = over_http.InferenceServerClient.generate_request_body(
            [self._tensor(over_http)], outputs=[over_http.InferRequestedOutput(self._request.output, binary_data=True)]
        )
        url = f"http://{self._http}/v2/models/{self._request.model}/infer"
        headers = {_JSON_LENGTH: str(length), **self._headers} | ({"Host": self._host} if self._host else {})

        async def send() -> None:
            async with session.post(url, data=body, headers=headers) as answer:
                content = await answer.read()
                if answer.status != 200:
                    raise WrongError(f"{answer.status} {content[:150].decode(errors='replace')}")
                self._check(np.frombuffer(content[int(answer.headers[_JSON_LENGTH]) :], dtype=np.float32))

        return send

    def _over_grpc(self, channel: Any) -> Send:
        inputs = [self._tensor(over_grpc)]

        async def send() -> None:
            answer = await channel.infer(self._request.model, inputs, headers=self._headers, client_timeout=SECONDS)
            self._check(answer.as_numpy(self._request.output))

        return send

    def _tensor(self, library: Any) -> Any:
        tensor = self._request.tensor
        kind = {"int32": "INT32", "float32": "FP32"}[str(tensor.dtype)]
        value = library.InferInput(self._request.input, list(tensor.shape), kind)
        value.set_data_from_numpy(tensor)
        return value

    def _check(self, answer: np.ndarray[Any, Any]) -> None:
        if not self._request.right(answer):
            raise WrongError("the answer is wrong")


def _text(error: Exception) -> str:
    """Return the type and the first line of an error, and the code of one of the operating system."""
    code = f" {errorcode.get(error.errno, error.errno)}" if isinstance(error, OSError) and error.errno else ""
    first, *_ = [*str(error).splitlines(), ""]
    return f"{type(error).__name__}{code}: {first}"[:200]


class WrongError(Exception):
    """An answer that is none, or not the right one."""
