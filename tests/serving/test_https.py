"""A single file behind a URL, from servers that know ranges and from such that do not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.destinations import CheckedResolver, Destinations
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.s3 import S3Source
from conch_contract import ModelSource
from tests.serving import bad_server
from tests.serving.bad_server import CONTENT, Answer, Request
from tests.serving.certificates import issued
from tests.serving.pod import Pod
from tests.serving.processes import Process, until
from tests.support.ports import free_port
from tests.support.tars import pack_files

# aiohttp's files answer ranges and carry ETags; http.server's answer 200 to everything and have dates only.
_RANGES = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[2])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
"""


@pytest.fixture(params=["ranges", "plain"])
def site(request: pytest.FixtureRequest, tmp_path: Path, magika_onnx: Path) -> Iterator[str]:
    """A folder behind HTTP; returns its root."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "detector.onnx").write_bytes(magika_onnx.read_bytes())
    port = free_port()
    plain = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    ranges = [sys.executable, "-c", _RANGES, str(port), str(folder)]
    command = plain if request.param == "plain" else ranges
    process = Process(command, tmp_path / "site.log", {"PATH": "/usr/bin:/bin"})
    yield f"http://127.0.0.1:{port}"
    process.kill()


def test_one_file_behind_a_url_is_served(pod: Pod, site: str, magika_onnx: Path) -> None:
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"{site}/missing.onnx"))
    pod.start()
    until(lambda: pod.model().reason in {"NotFound", "Unreachable"}, "the file is missing", pod.agent)
    assert f"{site}/missing.onnx" in pod.until_reason("NotFound").message
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"{site}/detector.onnx"))
    pod.until_ready()
    assert pod.model().bytes_total == magika_onnx.stat().st_size


class Site:
    """A server that declares what it does not send, and redirects to where it should not."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.elsewhere = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        match request.path.split("/")[1]:
            case "more":
                first = "Range" in request.headers
                headers = {"ETag": '"a"', "Content-Range": "bytes 0-0/10" if first else "bytes 0-9/10"}
                response = web.StreamResponse(status=206, headers=headers)
                response.enable_chunked_encoding()
                await response.prepare(request)
                for _ in range(1 if first else 64):
                    await response.write(b"x" if first else b"x" * 65536)
                return response
            case "long":
                return web.Response(status=206, body=b"x", headers={"Content-Range": f"bytes 0-0/{'9' * 5000}"})
            case "round":
                raise web.HTTPFound("/round/model.onnx")
            case "away":
                raise web.HTTPTemporaryRedirect(f"{self.elsewhere}/model.onnx")
            case _:
                return web.Response(body=b"model")


@contextlib.asynccontextmanager
async def serve(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Site, str]]:
    """Serve a site; yield it with its URL."""
    site, port, app = Site(), free_port(), web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    yield site, f"{'https' if context else 'http'}://127.0.0.1:{port}"
    await runner.cleanup()


async def fetch(uri: str, folder: Path, authority: Path | None = None) -> bytes:
    """Fetch a file as the agent does; return what is on the disk."""
    source = HttpsSource(uri, {})
    if authority is not None:
        source._client = replace(source._client, context=ssl.create_default_context(cafile=str(authority)))
    fetched = await Fetch(source, folder).run(await source.list_files())
    [file] = fetched.files.iterdir()
    return file.read_bytes()


async def test_a_server_that_sends_more_than_it_declared_fills_no_disk(tmp_path: Path) -> None:
    async with serve() as (_, url):
        with pytest.raises(Failure, match=r"declared 10 bytes for model\.onnx, and sends more") as raised:
            await fetch(f"{url}/more/model.onnx", tmp_path)
    assert raised.value.reason == Reason.FETCH_FAILED
    assert sum(path.stat().st_size for path in (tmp_path / "parts").glob("*.part")) == 0


async def test_a_size_of_thousands_of_digits_is_none() -> None:
    async with serve() as (_, url):
        [item] = (await HttpsSource(f"{url}/long/model.onnx", {}).list_files()).items
    assert item.size is None


async def test_redirects_are_followed_a_few_times_and_never_out_of_tls(tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with serve() as (plain, plain_url), serve(context) as (secure, secure_url):
        plain.elsewhere, secure.elsewhere = secure_url, plain_url
        assert await fetch(f"{plain_url}/away/model.onnx", tmp_path / "to-tls", authority) == b"model"
        plain.paths.clear()
        with pytest.raises(Failure, match="redirects from https to http"):
            await fetch(f"{secure_url}/away/model.onnx", tmp_path / "from-tls", authority)
        assert plain.paths == [], "no request is sent there"
        with pytest.raises(Failure, match="redirects more than 5 times"):
            await fetch(f"{plain_url}/round/model.onnx", tmp_path / "round")
        assert len(plain.paths) == 6


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
async def test_no_model_is_fetched_from_a_metadata_server(host: str) -> None:
    async with serve() as (site, url):
        site.elsewhere = f"http://{host}"
        address = URL(f"http://{host}").host or ""
        what = f"{address}{{}} a link-local address or a cloud's metadata server, which Conch never contacts"
        for uri, reason, message in (
            (
                f"http://{host}/model.onnx",
                Reason.UNREACHABLE,
                f"cannot be reached: {what.format(' is')}. Correct storageUri.",
            ),
            (
                f"{url}/away/model.onnx",
                Reason.FETCH_FAILED,
                f"leads to {what.format(',')}. Correct storageUri, or the server.",
            ),
        ):
            with pytest.raises(Failure) as raised:
                await HttpsSource(uri, {}).list_files()
            assert (raised.value.reason, raised.value.message) == (reason, f"{uri} {message}")
    with pytest.raises(ValueError, match="which Conch never contacts"):
        await CheckedResolver(Destinations("any.example"), frozenset()).resolve(address, 80, socket.AF_UNSPEC)


async def test_an_endpoint_that_is_a_metadata_server_is_refused() -> None:
    secret = {"AWS_ENDPOINT_URL": "http://169.254.169.254", "AWS_ALLOW_HTTP": "true"}
    with pytest.raises(
        Failure, match=r"AWS_ENDPOINT_URL is http://169\.254\.169\.254, but .* which Conch never contacts"
    ) as raised:
        await S3Source("s3://models/m", secret).list_files()
    assert raised.value.reason == Reason.UNREACHABLE


def test_a_tar_file_behind_a_url_is_served(pod: Pod, site: str, tmp_path: Path, magika_onnx: Path) -> None:
    content = gzip.compress(pack_files({"./1/model.onnx": magika_onnx.read_bytes()}))
    (tmp_path / "site" / "model.tar.gz").write_bytes(content)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"{site}/model.tar.gz"))
    pod.start()
    pod.until_ready()
    assert pod.model().bytes_total == magika_onnx.stat().st_size


async def test_a_login_is_sent_to_its_host_alone(tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    tls = certificate, key
    async with bad_server.serve(tls) as bad, bad_server.serve(tls) as other:

        async def answer(request: Request, _: Answer, writer: asyncio.StreamWriter) -> None:
            is_known = request.headers.get("authorization") == "Bearer token"
            status, headers = (307, {"Location": f"{other.url}{request.target}"}) if is_known else (401, {})
            writer.write(Answer(status, {**headers, "Content-Length": "0"}, b"").head)

        bad.on_file = answer
        uri, network = f"{bad.url}/m/model.onnx", {"ca.crt": authority.read_text()}
        login = {**network, "HTTPS_AUTHORIZATION": "Bearer token", "HTTPS_HOST": bad.url.removeprefix("https://")}
        source = HttpsSource(uri, login)
        [item] = (await source.list_files()).items
        assert b"".join([bytes(block) async for block in source.read(item, 0)]) == CONTENT
        assert other.requests
        assert [request for request in other.requests if "authorization" in request.headers] == []

        for secret, remedy in (
            (network, "Use a URL that may be read, or write HTTPS_AUTHORIZATION and HTTPS_HOST into the Secret"),
            ({**login, "HTTPS_AUTHORIZATION": "Bearer other"}, "Correct HTTPS_AUTHORIZATION in the storage Secret, or"),
            (
                {**login, "HTTPS_HOST": "models.example"},
                "was not sent: it is for https://models.example, by",
            ),
        ):
            with pytest.raises(Failure) as raised:
                await HttpsSource(uri, secret).list_files()
            assert raised.value.reason == Reason.ACCESS_DENIED
            assert remedy in raised.value.message
