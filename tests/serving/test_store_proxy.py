"""The proxy before a store, as another process of the pod would use it: a container shares the pod's loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.proxies import Proxies
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_proxy import StoreProxy
from tests.serving.bad_server import BadServer, serve


@pytest.fixture
async def proxied() -> AsyncGenerator[tuple[BadServer, StoreProxy], None]:
    async with serve() as bad:
        port = int(bad.url.rpartition(":")[2])
        client = HttpClient("s3://b/m", "AWS_ENDPOINT_URL", Destinations("127.0.0.1"), build_context(None), Proxies())
        async with StoreProxy(Endpoint(bad.url, "127.0.0.1", port), client).run() as proxy:
            yield bad, proxy


async def _send(proxy: StoreProxy, head: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("target", ["http://169.254.169.254/b?list-type=2", "http://other.example:1/b?a", "/b?list"])
async def test_every_request_goes_to_the_store(proxied: tuple[BadServer, StoreProxy], target: str) -> None:
    bad, proxy = proxied
    assert (await _send(proxy, f"GET {target} HTTP/1.1\r\nHost: other")).startswith(b"HTTP/1.1 200 ")
    assert [request.target for request in bad.requests] == ["/b?" + target.partition("?")[2]]


@pytest.mark.parametrize("line", ["CONNECT 169.254.169.254:80 HTTP/1.1", "POST /b HTTP/1.1", "DELETE /b HTTP/1.1"])
async def test_nothing_but_reads_is_sent(proxied: tuple[BadServer, StoreProxy], line: str) -> None:
    bad, proxy = proxied
    assert (await _send(proxy, f"{line}\r\nHost: b")).startswith(b"HTTP/1.1 4")
    assert bad.requests == []
    assert proxy.failure is None
