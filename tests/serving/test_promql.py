"""A real Prometheus: right and wrong queries, and servers that are none."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from conch.api.kinds import ServiceKey
from conch.observe.measured import Answer, PrometheusQuery
from conch.signals.prometheus import Queries
from conch.signals.resolver import Resolver
from tests.cluster import packages
from tests.serving.processes import Process, until
from tests.support.ports import free_port

KEY = ServiceKey("demo", "m")
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: itself
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
# Some 30 million steps: seconds of work for any machine.
SLOW = "sum_over_time(vector(1)[1y:1s])"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that reads itself."""
    packages.ensure({"prometheus": "prometheus"})
    root, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (root / "prometheus.yml").write_text(CONFIG.format(port=port))
    command = [
        "prometheus",
        f"--config.file={root / 'prometheus.yml'}",
        f"--storage.tsdb.path={root / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = Process(command, root / "prometheus.log", {"PATH": "/usr/bin:/bin", "HOME": str(root)})
    url = f"http://127.0.0.1:{port}"
    until(lambda: _series(url), "Prometheus has read itself", process)
    yield url
    process.stop(5)


def _series(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?query=up", timeout=5) as answer:  # noqa: S310
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return 0


class QueryClient:
    """A client of the queries that is woken, as a reconcile is."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.queries = Queries(lambda _: self.woken.set())

    @property
    def in_flight(self) -> int:
        """Queries that have been sent and not been answered."""
        entries = [entry for targets in self.queries._poller._entries.values() for entry in targets.values()]
        return sum(entry.task is not None for entry in entries)

    async def answer(self, query: PrometheusQuery, seconds: float = 20) -> Answer:
        """Request until there is an answer."""
        deadline = time.monotonic() + seconds
        while not (answers := self.queries.request(KEY, {"gate": query})):
            self.woken.clear()
            await asyncio.wait_for(self.woken.wait(), deadline - time.monotonic())
        return answers["gate"]


@pytest.fixture
async def client() -> AsyncIterator[QueryClient]:
    client = QueryClient()
    yield client
    await client.queries.close()


@pytest.mark.parametrize(
    ("query", "value"),
    [("1 + 1", 2.0), ("scalar(up)", 1.0), ('up{job="itself"}', 1.0), ("sum(up) / 4", 0.25), ("vector(1) / 0", None)],
)
async def test_a_number(server: str, client: QueryClient, query: str, value: float | None) -> None:
    answer = await client.answer(PrometheusQuery(server, query, 5.0, 10.0))
    assert answer == Answer(answer.time, float("inf") if value is None else value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sum(", 'Prometheus refuses the query: bad_data: invalid parameter "query": 1:5: parse error'),
        ("up[1m]", "the query answers a matrix, not one number"),
        ('"word"', "the query answers a string, not one number"),
        ("none_such", "the query answers nothing: no series matches it at this moment"),
        ("prometheus_tsdb_compaction_duration_seconds_bucket", "series, not one number; aggregate them"),
        ("vector(0) / vector(0)", "the query answers NaN"),
        ('up{job="{{other}}"', "parse error"),
    ],
)
async def test_no_number(server: str, client: QueryClient, query: str, words: str) -> None:
    answer = await client.answer(PrometheusQuery(server, query, 5.0, 10.0))
    assert answer.value is None
    assert words in answer.error


async def test_a_query_that_takes_too_long_is_reported(server: str, client: QueryClient) -> None:
    answer = await client.answer(PrometheusQuery(server, SLOW, 1.0, 10.0))
    # Prometheus reports it itself where its engine reads the clock in time.
    assert "did not answer within 1 s" in answer.error or "timeout: query timed out" in answer.error


async def test_a_prefix_and_a_slash_at_the_end_are_kept(server: str, client: QueryClient) -> None:
    assert (await client.answer(PrometheusQuery(f"{server}/", "1", 5.0, 10.0))).value == 1
    assert "HTTP status 404" in (await client.answer(PrometheusQuery(f"{server}/prefix", "1", 5.0, 10.0))).error


async def test_an_answer_is_kept_for_its_interval_and_then_renewed(server: str, client: QueryClient) -> None:
    often = PrometheusQuery(server, "1", 5.0, 0.2)
    first = await client.answer(often)
    deadline = time.monotonic() + 20
    while (later := await client.answer(often)) == first:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert later.time >= first.time + 0.2
    seldom = PrometheusQuery(server, "1", 5.0, 3600.0)
    kept = await client.answer(seldom)
    assert client.queries.request(KEY, {"gate": seldom}) == {"gate": kept}
    assert client.in_flight == 0


async def test_a_query_that_is_no_longer_requested_is_forgotten(server: str, client: QueryClient) -> None:
    query = PrometheusQuery(server, SLOW, 30.0, 10.0)
    assert client.queries.request(KEY, {"gate": query}) == {}
    assert client.in_flight == 1
    assert client.queries.request(KEY, {}) == {}
    assert client.queries._poller._entries == {}
    await client.answer(PrometheusQuery(server, "1", 5.0, 10.0))
    assert client.queries.request(KEY, {}) == {}
    assert client.queries._poller._entries == {}


async def test_a_port_without_a_listener_is_reported(client: QueryClient) -> None:
    answer = await client.answer(PrometheusQuery(f"http://127.0.0.1:{free_port()}", "1", 5.0, 10.0))
    assert "cannot be queried: Cannot connect to host" in answer.error


@pytest.mark.parametrize("server", ["http://169.254.169.254", "http://[fe80::1]:9090", "http://[::ffff:169.254.0.1]"])
async def test_a_link_local_address_is_never_contacted(client: QueryClient, server: str) -> None:
    assert (
        "is a link-local address or a cloud's metadata server, which Conch never contacts"
        in (await client.answer(PrometheusQuery(server, "1", 5, 10))).error
    )


async def test_a_name_of_a_link_local_address_is_never_contacted() -> None:
    with pytest.raises(ValueError, match="link-local"):
        await Resolver(4).resolve("169.254.169.254", 80)
    assert (await Resolver(4).resolve("127.0.0.1", 80))[0]["host"] == "127.0.0.1"


async def test_a_server_that_the_installer_does_not_allow_is_never_contacted(server: str) -> None:
    host = server.removeprefix("http://")
    for allowed, is_contacted in ((["prometheus.monitoring.svc:9090"], False), (["127.0.0.*:*"], True), ([host], True)):
        woken = asyncio.Event()
        queries = Queries(lambda _, woken=woken: woken.set(), servers=allowed)  # type: ignore[misc]
        query = PrometheusQuery(server, "1", 5.0, 10.0)
        assert queries.request(KEY, {"gate": query}) == {}
        await asyncio.wait_for(woken.wait(), 20)
        answer = queries.request(KEY, {"gate": query})["gate"]
        refusal = f"{server} cannot be queried: the installer allows prometheus.monitoring.svc:9090"
        assert (answer.value, answer.error.startswith(refusal)) == ((1.0, False) if is_contacted else (None, True))
        await queries.close()


async def test_a_server_that_is_no_url_is_reported(client: QueryClient) -> None:
    assert "cannot be queried" in (await client.answer(PrometheusQuery("http://a:b", "1", 5.0, 10.0))).error


class Impostor:
    """Another program that listens at the address of a Prometheus."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.hung = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        match request.path.split("/")[1]:
            case "page":
                return web.Response(text="<html>intranet</html>")
            case "elsewhere":
                raise web.HTTPTemporaryRedirect("/page/secret")
            case "huge":
                return web.Response(body=b" " * (2 << 20))
            case _:
                await self.hung.wait()
                return web.Response()


@pytest.fixture
async def impostor() -> AsyncIterator[tuple[Impostor, str]]:
    handler, port = Impostor(), free_port()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield handler, f"http://127.0.0.1:{port}"
    handler.hung.set()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("page", "the answer (HTTP status 200) is not that of a Prometheus"),
        ("elsewhere", "the answer (HTTP status 307) is not that of a Prometheus"),
        ("huge", "the answer is above 256 KiB"),
        ("silent", "did not answer within 0.1 s"),
    ],
)
async def test_a_server_that_is_no_prometheus_is_reported_without_its_answer(
    impostor: tuple[Impostor, str], client: QueryClient, path: str, words: str
) -> None:
    handler, url = impostor
    answer = await client.answer(PrometheusQuery(f"{url}/{path}", "1", 0.1, 10.0))
    assert words in answer.error
    assert "intranet" not in answer.error
    assert handler.paths == [f"/{path}/api/v1/query"], "no redirect is followed"
