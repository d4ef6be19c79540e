"""Proxies that answer in place of the server, do not answer, or have TLS of their own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest

from conch.cli.model.manifest import hash_file
from conch.cli.model.push.http import push
from conch.cli.model.push.plan import Upload
from conch.cli.options import CommandError
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.proxies import parse_proxy
from conch_agent.sources.secret_settings import parse_endpoint
from conch_agent.sources.token_service import TokenService
from tests.serving.bad_server import CONTENT, serve
from tests.serving.certificates import issued

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
LOGIN = "reader:hunter2"


@asynccontextmanager
async def serve_proxy(respond: Respond, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str, None]:
    """Serve a proxy; yield its host and port. It responds to the head of each first request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            await respond(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def send(status: str, *headers: str, body: str = "") -> Respond:
    """Return what sends an answer and closes the connection."""
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"])

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(f"{head}\r\n\r\n{body}".encode())
        await writer.drain()

    return respond


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """Open a tunnel, or pass on a request with a whole URL."""
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    place = target.removeprefix("http://").partition("/")[0]
    host, _, port = place.rpartition(":")
    from_server, to_server = await asyncio.open_connection(host, int(port))
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        to_server.write(head)
    async with asyncio.TaskGroup() as group:
        group.create_task(copy(reader, to_server))
        group.create_task(copy(from_server, writer))


NO_BASIC = send("407 Login", "Proxy-Authenticate: Negotiate", 'Proxy-Authenticate: Digest realm="a, b", nonce="c"')
NO_BASIC_WORDS = (
    "answered HTTP 407 Login, and takes logins by Negotiate, Digest. Allow Basic, or the pods without a login, in the"
    " proxy: Conch sends no other login."
)
BASIC = send("407 Login", "Proxy-Authenticate: Negotiate, NTLM", 'Proxy-Authenticate: Basic realm="a"')
BASIC_WORDS = "answered HTTP 407 Login. Correct user and password before the host in {key}."
SQUID = send("403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0", body="<html><title>Denied</title></html>")
SQUID_WORDS = "answered HTTP 403 Forbidden to a connection to store.example:{port}. Allow it in the proxy, or add"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("respond", "words"), [(NO_BASIC, NO_BASIC_WORDS), (BASIC, BASIC_WORDS), (SQUID, SQUID_WORDS)])
async def test_an_answer_of_the_proxy_is_not_that_of_the_server(scheme: str, respond: Respond, words: str) -> None:
    key, port = f"{scheme.upper()}_PROXY", 443 if scheme == "https" else 80
    async with serve_proxy(respond) as proxy:
        with pytest.raises(Failure) as raised:
            await HttpsSource(f"{scheme}://store.example/m.onnx", {key: f"http://{LOGIN}@{proxy}"}).list_files()
    assert raised.value.reason == Reason.UNREACHABLE
    assert f"the proxy http://{proxy} {words.format(key=key, port=port)}" in raised.value.message
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize(("respond", "words"), [(NO_BASIC, NO_BASIC_WORDS), (SQUID, SQUID_WORDS.format(port=80))])
async def test_nor_is_it_that_of_a_token_service(respond: Respond, words: str) -> None:
    async with serve_proxy(respond) as proxy:
        network = NetworkSettings(http_proxy=parse_proxy("HTTP_PROXY", f"http://{LOGIN}@{proxy}"))
        service = TokenService("s3://b/m", parse_endpoint("http://store.example", ""), "AWS_ENDPOINT_URL_STS", network)
        with pytest.raises(Failure) as raised:
            await service.post("/", {})
    assert raised.value.reason == Reason.UNREACHABLE
    assert f"the proxy http://{proxy} {words}" in raised.value.message


@pytest.mark.parametrize(
    ("scheme", "respond", "words"),
    [
        ("http", NO_BASIC, NO_BASIC_WORDS.removesuffix(".")),
        ("https", NO_BASIC, NO_BASIC_WORDS.removesuffix(".")),
        ("https", SQUID, SQUID_WORDS.format(port=443)),
    ],
)
async def test_nor_is_it_that_of_the_target_of_a_push(
    scheme: str, respond: Respond, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.tar").write_bytes(b"content")
    upload = Upload(tmp_path, (hash_file(tmp_path / "m.tar", PurePosixPath("m.tar")),))
    async with serve_proxy(respond) as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{LOGIN}@{proxy}")
        with pytest.raises(CommandError) as raised:
            await push(upload, f"{scheme}://store.example/m.tar", lambda _: None)
    assert f"the proxy http://{proxy} {words}" in str(raised.value)


async def test_a_proxy_that_answers_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conch_agent.sources.http_client._HEAD_SECONDS", 0.5)
    done = asyncio.Event()

    async def wait(*_: object) -> None:
        await done.wait()

    async with serve_proxy(wait) as proxy:
        with pytest.raises(
            Failure, match=rf"in 0\.5 s, through the proxy http://{proxy}\. Read the log of the proxy\."
        ):
            await HttpsSource("http://store.example/m.onnx", {"HTTP_PROXY": proxy}).list_files()
        done.set()


@pytest.mark.parametrize("has_tls", [True, False])
async def test_a_proxy_has_tls_of_its_own(has_tls: bool, tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(serve((certificate, key) if has_tls else None))
        proxy = await stack.enter_async_context(serve_proxy(connect, context))
        variable = "HTTPS_PROXY" if has_tls else "HTTP_PROXY"
        secret = {variable: f"https://{LOGIN}@{proxy}"}
        with pytest.raises(
            Failure, match=r"its proxy fails: the certificate of .* has an unknown issuer .* into ca\.crt"
        ):
            await HttpsSource(f"{bad.url}/m/model.onnx", secret).list_files()
        source = HttpsSource(f"{bad.url}/m/model.onnx", {**secret, "ca.crt": authority.read_text()})
        [item] = (await source.list_files()).items
        assert b"".join([bytes(block) async for block in source.read(item, 0)]) == CONTENT
        if has_tls:
            assert not [request for request in bad.requests if "proxy-authorization" in request.headers]
