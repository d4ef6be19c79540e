"""The HTTP client of warm-ups and comparisons: a model's inference endpoints, and requests that are sent again.

A connection ends for reasons that say nothing of the model: a pod is drained, Triton restarts, a proxy gives up. No
request of this client changes anything, so one whose connection ends is sent again: an answer is judged, a lost
connection never is.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp

from conch_agent.triton import ConnectionLost, Refused, TritonGone
from conch_agent.warmup.requests import Request
from conch_contract.parsing import parse_json

_HEADER: Final = "Inference-Header-Content-Length"
_LONGEST_WORDS: Final = 2000
_LOOK: Final = aiohttp.ClientTimeout(total=10)
_CONNECT: Final = aiohttp.ClientTimeout(total=None, connect=5)  # an answer may take as long as the warm-up lasts
# A request is sent so many times: it may itself be what ends a connection, and with it a Triton that has users.
_TRIES: Final = 5
_LOADING: Final = "has no available versions"  # Triton 2.51, while it loads the model
_GRACE: Final = 5.0  # seconds from the start in which a Triton without the model may have just restarted
_FIRST_WAIT: Final = 0.5  # seconds after a lost connection, twice as many after the next: a pod leaves its Service
_DOUBLINGS: Final = 3
# Statuses by which a proxy between says that it lost the server; Triton's own errors are JSON.
_FROM_PROXY: Final = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """An answer's bytes; `header` is the length of its JSON where binary tensors follow, `seconds` the latency."""

    content: bytes
    header: int | None
    seconds: float


class Endpoint:
    """A model at `root` (http://host:port), asked over connections that are new with each `async with`.

    A request whose connection ends is sent again, at most five times. While no connection can be opened, nothing is
    sent, and it waits until `deadline` (of `time.monotonic`; 0: it does not wait).

    Raises Refused with Triton's words where it says no, ConnectionLost where all connections ended, and TritonGone
    where none could be opened.

    Attributes:
        sent: how many inference requests were sent, the same one several times included.
        losses: why connections under them ended.
        away: why it waits for a server at this moment; empty: the last request had an answer.
    """

    def __init__(self, root: str, model: str, connections: int = 1, deadline: float = 0.0) -> None:
        self._root = root
        self._model = f"/v2/models/{model}"
        self._connections = connections
        self._deadline = deadline
        self._not_loaded = f"Request for unknown model: '{model}'"  # Triton 2.51
        self._opened = time.monotonic()
        self._has_answered = False
        self.sent = 0
        self.losses: list[str] = []
        self.away = ""

    @property
    def waits(self) -> bool:
        """Whether it waits for a server that is away."""
        return self._deadline > 0

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        self._session = aiohttp.ClientSession(self._root, connector=connector, timeout=_CONNECT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def metadata(self, version: int | None = None) -> dict[str, Any]:
        """Return the model's (or its version's) metadata: versions, inputs, outputs."""
        return await self._look(self._path(version))

    async def config(self, version: int | None = None) -> dict[str, Any]:
        """Return the configuration by which Triton serves the version; without one, the newest."""
        return await self._look(f"{self._path(version)}/config")

    async def infer(self, version: int | None, request: Request) -> Answer:
        """Send an inference request."""
        headers = {_HEADER: str(request.header)} if request.header is not None else {}
        path = f"{self._path(version)}/infer"
        return await self._ask("POST", path, patience=0.0, data=request.content, headers=headers)

    async def _look(self, path: str) -> dict[str, Any]:
        answer = await self._ask("GET", path, patience=self._deadline, timeout=_LOOK)
        found: dict[str, Any] = parse_json(answer.content)
        return found

    async def _ask(self, method: str, path: str, patience: float, **options: Any) -> Answer:
        """Send a request until it has an answer; until `patience`, a time, however often its connection ends."""
        began, losses, was_away = time.monotonic(), 0, False
        while True:
            try:
                answer = await self._send(method, path, **options)
            except ConnectionLost as lost:
                losses += 1
                if losses >= _TRIES and time.monotonic() >= patience:
                    message = (
                        f"its connection ended {losses} times in {time.monotonic() - began:.0f} s, at last: {lost}"
                    )
                    raise ConnectionLost(message) from lost
                await asyncio.sleep(_FIRST_WAIT * 2 ** min(losses - 1, _DOUBLINGS))
            except TritonGone as gone:
                was_away = True
                await self._wait(f"no connection can be opened: {gone}")
            except Refused as refusal:
                was_served = losses > 0 or was_away or (self.waits and (self._has_answered or method == "POST"))
                if not (self._is_not_loaded(refusal) and (was_served or self._may_load(refusal))):
                    self.away = ""
                    raise
                await self._wait(f"the model is not loaded: {refusal}")
            else:
                self.away, self._has_answered = "", True
                return answer

    def _is_not_loaded(self, refusal: Refused) -> bool:
        """Whether it is the answer of a Triton that took another's place and has not loaded this model yet."""
        return str(refusal).startswith(self._not_loaded)

    def _may_load(self, refusal: Refused) -> bool:
        """Whether a model without any answer so far may be loaded: its Triton restarted just before the first look."""
        is_loading, is_early = _LOADING in str(refusal), time.monotonic() < self._opened + _GRACE
        return self.waits and (is_loading or is_early)

    async def _wait(self, why: str) -> None:
        """Wait for a server that is away; raises TritonGone once the deadline is over."""
        self.away = why
        if time.monotonic() >= self._deadline:
            raise TritonGone(why)
        await asyncio.sleep(_FIRST_WAIT)

    async def _send(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request once; raises ConnectionLost if the server may have got it, TritonGone if it did not."""
        began, counted = time.monotonic(), method == "POST"
        self.sent += counted
        try:
            async with self._session.request(method, path, **options) as answer:
                content = await answer.read()
                header = answer.headers.get(_HEADER)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self.sent -= counted
            raise TritonGone(str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise self._lost(str(error) or type(error).__name__, counted=counted) from error
        if answer.status != 200:
            words = _words(content)
            if not words and answer.status in _FROM_PROXY:
                raise self._lost(f"HTTP status {answer.status} {_text(content)}".strip(), counted=counted)
            raise Refused((words or _text(content) or f"HTTP status {answer.status}")[:_LONGEST_WORDS])
        return Answer(content, int(header) if header else None, time.monotonic() - began)

    def _lost(self, why: str, *, counted: bool) -> ConnectionLost:
        if counted:
            self.losses.append(why)
        return ConnectionLost(why)

    def _path(self, version: int | None) -> str:
        return self._model if version is None else f"{self._model}/versions/{version}"


def describe_losses(endpoint: Endpoint) -> str:
    """Return how many connections ended under requests, and why the last one did, for the middle of a sentence."""
    if not endpoint.losses:
        return "no connection was lost"
    number = len(endpoint.losses)
    return f"{number} connection{'s' if number > 1 else ''} ended under requests, at last: {endpoint.losses[-1]}"


def _words(content: bytes) -> str:
    """Return what Triton said; empty where the answer is not Triton's."""
    try:
        return str(parse_json(content)["error"]).strip()
    except (ValueError, KeyError, TypeError):
        return ""


def _text(content: bytes) -> str:
    return content.decode(errors="replace").strip()[:_LONGEST_WORDS]
