"""Proxies between Conch and the API server: those of the environment, read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from conch.api.kinds import CONFIG_MAP, Ref
from conch.write import Server
from tests.support.web import serve_apps

TARGET = Ref(CONFIG_MAP, "c")
PATH = "/api/v1/namespaces/n/configmaps/c"


@dataclass
class Seen:
    """The base URL of a server, and the URLs and credentials of the requests to it."""

    base: str = ""
    urls: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Seen]:
    """A server that answers as a proxy and as an API server."""
    seen = Seen()

    async def answer(request: web.Request) -> web.Response:
        seen.urls.append(str(request.url))
        seen.credentials.append(request.headers.get("Authorization", ""))
        return web.json_response({"metadata": {"name": "c"}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serve_apps(app) as [base]:
        seen.base = base
        yield seen


async def read(host: str) -> None:
    async with Server(Configuration(host=host)) as api:
        assert await api.get("n", TARGET) == {"metadata": {"name": "c"}}


@pytest.mark.parametrize(("exempt", "is_direct"), [("", False), ("api.invalid", False), ("127.0.0.1", True)])
async def test_a_proxy_of_the_environment_is_used_but_for_the_hosts_that_it_exempts(
    server: Seen, monkeypatch: pytest.MonkeyPatch, *, exempt: str, is_direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1" if is_direct else server.base)
    monkeypatch.setenv("no_proxy", exempt)
    host = server.base if is_direct else "http://10.255.255.1:6443"
    await read(host)
    assert server.urls == [host + PATH]


async def test_a_password_of_netrc_is_not_sent(
    server: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("home") / "netrc"
    file.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(file))
    await read(server.base)
    assert server.credentials == [""]
