"""What the client of warm-ups takes for an answer of Triton, and what for a lost connection."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from conch_agent.triton import ConnectionLostError, TritonError, TritonUnavailableError
from conch_agent.warmup import infer
from conch_agent.warmup.infer import Endpoint, describe_losses
from conch_agent.warmup.requests import Request

REQUEST = Request("requests[0]", b"{}")
NOT_LOADED = (404, {"error": "Request for unknown model: 'm' is not found"})
FULL = (503, {"error": "Exceeds maximum queue size"})
PROXY = (503, "upstream connect error or disconnect/reset before headers")
GOOD: tuple[int, object] = (200, {"outputs": []})


@asynccontextmanager
async def serving(*answers: tuple[int, object]) -> AsyncIterator[str]:
    """A server that gives these answers in turn, and the last one for ever."""
    left = list(answers)

    async def answer(_: web.Request) -> web.Response:
        status, content = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, text=content if isinstance(content, str) else json.dumps(content))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "_FIRST_DELAY", 0.001)


async def test_an_error_of_a_proxy_is_a_lost_connection() -> None:
    async with serving(PROXY, PROXY, GOOD) as root, Endpoint(root, "m") as endpoint:
        await endpoint.infer(None, REQUEST)
        assert (endpoint.sent, len(endpoint.losses)) == (3, 2)
        assert describe_losses(endpoint).startswith("2 connections ended under requests, at last: HTTP status 503 up")
    async with serving(PROXY) as root, Endpoint(root, "m") as endpoint:
        with pytest.raises(
            ConnectionLostError, match="its connection ended 5 times in 0 s, at last: HTTP status 503 upst"
        ):
            await endpoint.infer(None, REQUEST)


async def test_an_error_of_triton_is_an_answer() -> None:
    async with serving(FULL, GOOD) as root, Endpoint(root, "m") as endpoint:
        with pytest.raises(TritonError, match="Exceeds maximum queue size"):
            await endpoint.infer(None, REQUEST)
        assert (endpoint.sent, endpoint.losses) == (1, [])


@pytest.mark.parametrize(
    ("waits", "answers", "expected"),
    [
        (True, [NOT_LOADED, NOT_LOADED, GOOD], None),
        (False, [PROXY, NOT_LOADED, GOOD], TritonUnavailableError),
        (False, [NOT_LOADED, GOOD], TritonError),
    ],
    ids=["another pod", "a Triton that restarts", "a Triton that never had it"],
)
async def test_a_triton_that_has_not_loaded_the_model(
    waits: bool, answers: Sequence[tuple[int, object]], expected: type[Exception] | None
) -> None:
    deadline = time.monotonic() + 20 if waits else 0.0
    async with serving(*answers) as root, Endpoint(root, "m", deadline=deadline) as endpoint:
        if expected is None:
            await endpoint.infer(None, REQUEST)
            assert (endpoint.outage, endpoint.losses) == ("", [])
            return
        with pytest.raises(expected, match="unknown model: 'm'"):
            await endpoint.infer(None, REQUEST)


LOADS = (404, {"error": "Request for unknown model: 'm' has no available versions"})


LOOKS = [(5, NOT_LOADED, True), (0, NOT_LOADED, False), (0, LOADS, True)]


@pytest.mark.parametrize(("grace", "answer", "waits"), LOOKS)
async def test_a_model_that_its_triton_loads_at_the_first_look_is_waited_for(
    grace: float, answer: tuple[int, object], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Triton that has restarted does not know the model, then loads it; one that serves others never knows it."""
    monkeypatch.setattr(infer, "_GRACE", grace)
    async with serving(answer, GOOD) as root, Endpoint(root, "m", deadline=time.monotonic() + 20) as endpoint:
        if waits:
            assert await endpoint.read_metadata() == {"outputs": []}
        else:
            with pytest.raises(TritonError, match="unknown model"):
                await endpoint.read_metadata()
    async with serving(answer, GOOD) as root, Endpoint(root, "m") as endpoint:
        with pytest.raises(TritonError, match="unknown model"):
            await endpoint.read_metadata()
