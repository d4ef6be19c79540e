"""One connection to a Triton's inference endpoints, for the length of one round."""

from __future__ import annotations

import json
from typing import Any, Final, Self

import aiohttp

from conch_agent.triton import Refused, TritonGone
from conch_agent.warmup.requests import Request

_HEADER: Final = "Inference-Header-Content-Length"
_LONGEST_WORDS: Final = 2000
_LOOK: Final = aiohttp.ClientTimeout(total=10)
_CONNECT: Final = aiohttp.ClientTimeout(total=None, connect=5)  # an answer may take as long as the warm-up lasts


class Endpoint:
    """A model at `root` (http://host:port), asked over connections of its own that end with it.

    Raises Refused with Triton's words where it says no, TritonGone where nobody answers.
    """

    def __init__(self, root: str, model: str, connections: int = 1) -> None:
        self._root = root
        self._model = f"/v2/models/{model}"
        self._connections = connections

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

    async def infer(self, version: int | None, request: Request) -> tuple[bytes, int | None]:
        """Return the answer's bytes, and the length of its JSON where binary tensors follow."""
        headers = {_HEADER: str(request.header)} if request.header is not None else {}
        return await self._ask("POST", f"{self._path(version)}/infer", data=request.content, headers=headers)

    async def _look(self, path: str) -> dict[str, Any]:
        content, _ = await self._ask("GET", path, timeout=_LOOK)
        found: dict[str, Any] = json.loads(content)
        return found

    async def _ask(self, method: str, path: str, **options: Any) -> tuple[bytes, int | None]:
        try:
            async with self._session.request(method, path, **options) as answer:
                content = await answer.read()
                header = answer.headers.get(_HEADER)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise TritonGone(str(error) or type(error).__name__) from error
        if answer.status != 200:
            raise Refused(_words(answer.status, content))
        return content, int(header) if header else None

    def _path(self, version: int | None) -> str:
        return self._model if version is None else f"{self._model}/versions/{version}"


def _words(status: int, content: bytes) -> str:
    """Return what Triton said; where it said nothing of its own, what came."""
    text = content.decode(errors="replace")
    try:
        said = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        said = text
    return (str(said).strip() or f"HTTP status {status}")[:_LONGEST_WORDS]
