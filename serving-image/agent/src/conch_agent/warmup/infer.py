"""The HTTP client of warm-ups and comparisons: a model's inference endpoint, with retries.

A connection may end for reasons other than the model: a pod is drained, Triton restarts, a proxy closes it. The
requests of this client change no state, so a request whose connection ends is sent again. Answers are evaluated, lost
connections are not.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp

from conch_agent.triton import ConnectionLostError, TritonError, TritonUnavailableError
from conch_agent.warmup.requests import Request
from conch_contract.parsing import parse_json

_HEADER: Final = "Inference-Header-Content-Length"
_LONGEST: Final = 2000
_READ_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_CONNECT_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None, connect=5
)  # an answer may take as long as the warm-up lasts
# Attempts of a request. They are bounded, since the request itself may crash Triton, which has requests of users.
_ATTEMPTS: Final = 5
_LOADING: Final = "has no available versions"  # Triton 2.51, while it loads the model
_GRACE: Final = 5.0  # seconds after the start in which a Triton without the model may have just restarted
_FIRST_DELAY: Final = 0.5  # seconds after a lost connection, twice as many after the next: a pod leaves its Service
_DOUBLINGS: Final = 3
# Statuses of a proxy that has lost the server. Triton's own errors are JSON.
_FROM_PROXY: Final = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        content: The body.
        header: Length of the JSON if binary tensors follow it.
        seconds: The latency.
    """

    content: bytes
    header: int | None
    seconds: float


class Endpoint:
    """The endpoint of a model. Each `async with` opens new connections.

    A request whose connection ends is sent up to five times. While no connection can be opened, the request waits until
    the deadline. Its methods raise TritonError for an error of Triton, ConnectionLostError if all connections ended,
    and TritonUnavailableError if none could be opened.

    Attributes:
        sent: Number of inference requests that were sent, repetitions included.
        losses: Reasons why connections of inference requests ended.
        outage: Reason why a request waits for a server; empty: the last request had an answer.
    """

    def __init__(self, root: str, model: str, connections: int = 1, deadline: float = 0.0) -> None:
        """Create the endpoint.

        Args:
            root: Root of the HTTP API, http://host:port.
            model: Name of the model.
            connections: Largest number of connections.
            deadline: Time (of `time.monotonic`) until which requests wait for a server; 0: they do not wait.
        """
        self._root = root
        self._model = f"/v2/models/{model}"
        self._connections = connections
        self._deadline = deadline
        self._not_loaded = f"Request for unknown model: '{model}'"  # Triton 2.51
        self._opened = time.monotonic()
        self._has_answered = False
        self.sent = 0
        self.losses: list[str] = []
        self.outage = ""

    @property
    def has_deadline(self) -> bool:
        """True if requests wait for an unavailable server."""
        return self._deadline > 0

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        self._session = aiohttp.ClientSession(self._root, connector=connector, timeout=_CONNECT_TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def read_metadata(self, version: int | None = None) -> dict[str, Any]:
        """Return Triton's metadata of the model: versions, inputs, outputs.

        Args:
            version: The version; None: the newest.
        """
        return await self._read(self._build_path(version))

    async def read_config(self, version: int | None = None) -> dict[str, Any]:
        """Return Triton's configuration of the model.

        Args:
            version: The version; None: the newest.
        """
        return await self._read(f"{self._build_path(version)}/config")

    async def infer(self, version: int | None, request: Request) -> Answer:
        """Send an inference request and return its answer.

        Args:
            version: The version; None: the newest.
            request: The request.
        """
        headers = {_HEADER: str(request.header)} if request.header is not None else {}
        path = f"{self._build_path(version)}/infer"
        return await self._send_until_answered("POST", path, patience=0.0, data=request.content, headers=headers)

    async def _read(self, path: str) -> dict[str, Any]:
        answer = await self._send_until_answered("GET", path, patience=self._deadline, timeout=_READ_TIMEOUT)
        value: dict[str, Any] = parse_json(answer.content)
        return value

    async def _send_until_answered(self, method: str, path: str, patience: float, **options: Any) -> Answer:
        """Send a request until it has an answer. Until the time `patience`, lost connections are not bounded."""
        began, losses, was_unavailable = time.monotonic(), 0, False
        while True:
            try:
                answer = await self._send(method, path, **options)
            except ConnectionLostError as error:
                losses += 1
                if losses >= _ATTEMPTS and time.monotonic() >= patience:
                    message = (
                        f"its connection ended {losses} times in {time.monotonic() - began:.0f} s, at last: {error}"
                    )
                    raise ConnectionLostError(message) from error
                await asyncio.sleep(_FIRST_DELAY * 2 ** min(losses - 1, _DOUBLINGS))
            except TritonUnavailableError as error:
                was_unavailable = True
                await self._wait(f"no connection can be opened: {error}")
            except TritonError as error:
                is_expected = self.has_deadline and (self._has_answered or method == "POST")
                was_served = losses > 0 or was_unavailable or is_expected
                if not (self._is_not_loaded(error) and (was_served or self._may_load(error))):
                    self.outage = ""
                    raise
                await self._wait(f"the model is not loaded: {error}")
            else:
                self.outage, self._has_answered = "", True
                return answer

    def _is_not_loaded(self, error: TritonError) -> bool:
        """Return True for the error of a Triton that has not loaded the model, such as a new one."""
        return str(error).startswith(self._not_loaded)

    def _may_load(self, error: TritonError) -> bool:
        """Return True if Triton may load a model that has not answered yet: it restarted just before the first read."""
        is_loading, is_early = _LOADING in str(error), time.monotonic() < self._opened + _GRACE
        return self.has_deadline and (is_loading or is_early)

    async def _wait(self, outage: str) -> None:
        """Wait for an unavailable server.

        Raises:
            TritonUnavailableError: The deadline is over.
        """
        self.outage = outage
        if time.monotonic() >= self._deadline:
            raise TritonUnavailableError(outage)
        await asyncio.sleep(_FIRST_DELAY)

    async def _send(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request once.

        Raises:
            ConnectionLostError: The connection ended, and the server may have the request.
            TritonUnavailableError: No connection can be opened.
            TritonError: Triton answers with an error.
        """
        began, is_inference = time.monotonic(), method == "POST"
        self.sent += is_inference
        try:
            async with self._session.request(method, path, **options) as answer:
                content = await answer.read()
                header = answer.headers.get(_HEADER)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self.sent -= is_inference
            raise TritonUnavailableError(str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise self._record_loss(str(error) or type(error).__name__, is_inference=is_inference) from error
        if answer.status != 200:
            words = _read_error(content)
            if not words and answer.status in _FROM_PROXY:
                raise self._record_loss(
                    f"HTTP status {answer.status} {_read_text(content)}".strip(), is_inference=is_inference
                )
            raise TritonError((words or _read_text(content) or f"HTTP status {answer.status}")[:_LONGEST])
        return Answer(content, int(header) if header else None, time.monotonic() - began)

    def _record_loss(self, cause: str, *, is_inference: bool) -> ConnectionLostError:
        if is_inference:
            self.losses.append(cause)
        return ConnectionLostError(cause)

    def _build_path(self, version: int | None) -> str:
        return self._model if version is None else f"{self._model}/versions/{version}"


def describe_losses(endpoint: Endpoint) -> str:
    """Return the number of lost connections and the reason of the last loss, for the middle of a sentence.

    Args:
        endpoint: The endpoint.
    """
    if not endpoint.losses:
        return "no connection was lost"
    number = len(endpoint.losses)
    return f"{number} connection{'s' if number > 1 else ''} ended under requests, at last: {endpoint.losses[-1]}"


def _read_error(content: bytes) -> str:
    """Return Triton's error message; empty where the answer is not Triton's."""
    try:
        return str(parse_json(content)["error"]).strip()
    except (ValueError, KeyError, TypeError):
        return ""


def _read_text(content: bytes) -> str:
    return content.decode(errors="replace").strip()[:_LONGEST]
