"""What listens at an agent's port is the user's: whatever it answers, the operator polls it seldom and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from conch.api.kinds import ServiceKey
from conch.decide import ReportRequest
from conch.observe import Pod
from conch.signals import Agents
from conch_contract import names
from tests.support.hostile_server import GOOD, REPORTS, model

KEY = ServiceKey("demo", "m")
HOST = "127.0.0.1"
POD = Pod("pod", "uid", "m-new", "", HOST, True, False, {})  # noqa: FBT003
REQUEST = ReportRequest(POD, 1.0)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener:
    """What listens at the agent's port, and the poller that reads it."""

    def __init__(self) -> None:
        self.answer = ""
        self.requests = 0
        self.woken = asyncio.Event()
        self.agents: Agents

    async def respond(self, _request: web.Request) -> web.Response:
        """Answer a request."""
        self.requests += 1
        return web.Response(text=self.answer)

    async def until_requests(self, count: int) -> None:
        """Request reports, as each reconcile does, until so many HTTP requests have come."""
        async with asyncio.timeout(20):
            while self.requests < count:
                self.agents.request(KEY, [REQUEST])
                await asyncio.sleep(0.02)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    app = web.Application()
    app.router.add_get(names.STATUS_PATH, listener.respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = runner.addresses[0][1]
    listener.agents = Agents(lambda _: listener.woken.set(), port=port)
    yield listener
    await listener.agents.close()
    await runner.cleanup()


@pytest.mark.parametrize("answer", REPORTS.values(), ids=REPORTS)
async def test_an_answer_that_is_no_report_is_dropped_and_the_next_one_counts(listener: Listener, answer: str) -> None:
    listener.answer = answer
    await listener.until_requests(1)
    await asyncio.sleep(0.2)
    assert listener.agents.request(KEY, [REQUEST]) == {}
    listener.answer = json.dumps(GOOD)
    await listener.until_requests(2)
    await asyncio.wait_for(listener.woken.wait(), 10)
    assert listener.agents.request(KEY, [REQUEST])["uid"].ready


async def test_a_pod_that_has_something_new_each_time_is_polled_once_a_second(listener: Listener) -> None:
    """An honest download reports more bytes each time, and each new report queues its service."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 3:
        listener.answer = model(bytesFetched=listener.requests)
        listener.agents.request(KEY, [REQUEST])
        await asyncio.sleep(0.01)
    assert 2 <= listener.requests <= 1 + (loop.time() - began)


async def test_a_pod_that_goes_and_comes_back_while_it_is_polled_is_known_again(listener: Listener) -> None:
    listener.answer = json.dumps(GOOD)
    await listener.until_requests(1)
    await asyncio.wait_for(listener.woken.wait(), 10)
    listener.agents.request(KEY, [REQUEST])
    listener.woken.clear()
    listener.agents.request(KEY, [])
    listener.agents.request(KEY, [REQUEST])
    await asyncio.wait_for(listener.woken.wait(), 10)
    assert listener.agents.request(KEY, [REQUEST])["uid"].ready


async def test_a_pod_that_is_no_longer_polled_is_forgotten(listener: Listener) -> None:
    listener.answer = json.dumps(GOOD)
    await listener.until_requests(1)
    listener.agents.request(KEY, [])
    await asyncio.sleep(0.2)
    assert listener.agents.request(KEY, []) == {}
