"""Objects that are read by signed URLs: what a store may answer, and what falls back to the store's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from obstore.store import S3Store

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.proxies import Proxies
from conch_agent.sources.s3 import S3Source
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.signed_reads import SignedReads
from tests.serving.bad_server import CONTENT, Answer, BadServer, Request, build_file, send, serve
from tests.serving.store import Store

_SECRET = "a-secret-of-this-test"
_SIGNATURE = "X-Amz-Signature"
Writer = asyncio.StreamWriter


@pytest.fixture
async def bad() -> AsyncGenerator[BadServer, None]:
    async with serve() as server:
        yield server


def _open(bad: BadServer) -> S3Source:
    secret = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": _SECRET, "AWS_SESSION_TOKEN": f"{_SECRET}-token"}
    return S3Source("s3://b/m", secret | {"AWS_ENDPOINT_URL": bad.url, "AWS_ALLOW_HTTP": "true"})


async def _fetch(bad: BadServer, folder: Path) -> bytes:
    source = _open(bad)
    fetched = await Fetch(source, folder).run(await source.list_files())
    return (fetched.files / bad.names[0]).read_bytes()


def _list_reads(bad: BadServer) -> list[tuple[bool, str]]:
    """Return whether each request for bytes of a file was signed in its URL, and the range."""
    return [(_SIGNATURE in each.target, each.headers["range"]) for each in bad.requests if each.is_file]


async def test_objects_are_read_by_signed_urls(bad: BadServer, tmp_path: Path) -> None:
    bad.names = ["model.onnx", "other/model.onnx"]
    assert await _fetch(bad, tmp_path) == CONTENT
    assert _list_reads(bad) == [(True, f"bytes=0-{len(CONTENT) - 1}")] * 2
    for request in bad.requests:
        if request.is_file:
            assert request.headers["if-match"]
            assert not {"authorization", "referer"} & set(request.headers)


async def test_a_real_store_takes_signed_urls(store: Store) -> None:
    content = bytes(range(256)) * 5000
    key = "m/a name + 100%/é.bin"
    store.put("signed", {key: content})
    source = S3Source("s3://signed/m", store.secret)
    (item,) = (await source.list_files()).items
    client = HttpClient(source.uri, "AWS_ENDPOINT_URL", Destinations("127.0.0.1"), build_context(None), Proxies())
    bucket = S3Store("signed", config=store.secret)  # type: ignore[arg-type]  # a Secret is text
    async with client.open_session() as session:
        reads = SignedReads(bucket, Endpoint(store.endpoint, "127.0.0.1", store.port), client, session, {})
        part = [bytes(block) async for block in reads.read(item, 1000, 900_000)]
    assert b"".join(part) == content[1000:900_000]


async def test_a_signed_url_that_is_refused_falls_back(bad: BadServer, tmp_path: Path) -> None:
    async def refuse(request: Request, answer: Answer, writer: Writer) -> None:
        if _SIGNATURE in request.target:
            answer = Answer(403, {"Content-Length": "0"}, b"")
        await send(request, answer, writer)

    bad.on_file = refuse
    assert await _fetch(bad, tmp_path) == CONTENT
    assert [is_signed for is_signed, _ in _list_reads(bad)] == [True, False]


async def test_after_a_refusal_no_url_is_signed(bad: BadServer) -> None:
    async def refuse(request: Request, answer: Answer, writer: Writer) -> None:
        await send(request, Answer(403, {"Content-Length": "0"}, b"") if "X-Amz" in request.target else answer, writer)

    bad.on_file = refuse
    source = _open(bad)
    (item,) = (await source.list_files()).items
    async with source.connect():
        for _ in range(3):
            assert b"".join([bytes(block) async for block in source.read(item, 0)]) == CONTENT
    assert [is_signed for is_signed, _ in _list_reads(bad)] == [True, False, False, False]


async def test_an_answer_that_breaks_off_is_completed(bad: BadServer, tmp_path: Path) -> None:
    half = len(CONTENT) // 2

    async def break_off(request: Request, answer: Answer, writer: Writer) -> None:
        if _SIGNATURE not in request.target:
            await send(request, answer, writer)
            return
        writer.write(answer.head + answer.body[:half])
        await writer.drain()
        writer.close()

    bad.on_file = break_off
    assert await _fetch(bad, tmp_path) == CONTENT
    (_, whole), (is_signed, rest) = _list_reads(bad)
    assert (whole, is_signed) == (f"bytes=0-{len(CONTENT) - 1}", False)
    start = int(rest.removeprefix("bytes=").partition("-")[0])
    assert 0 < start <= half


@pytest.mark.parametrize("wrong", ["the whole file", "another range", "another size", "other content", "no length"])
async def test_an_answer_with_anything_else_is_not_used(bad: BadServer, wrong: str, tmp_path: Path) -> None:
    async def answer_wrongly(request: Request, answer: Answer, writer: Writer) -> None:
        if _SIGNATURE in request.target:
            headers, size = dict(answer.headers), len(CONTENT)
            match wrong:
                case "the whole file":
                    answer = Answer(200, {"Content-Length": str(size), "ETag": headers["ETag"]}, CONTENT)
                case "another range":
                    headers["Content-Range"] = f"bytes 1-{size}/{size}"
                case "another size":
                    headers["Content-Range"] = f"bytes 0-{size - 1}/{size + 1}"
                case "other content":
                    headers["ETag"] = '"other"'
                case "no length":
                    del headers["Content-Length"]
            if wrong != "the whole file":
                answer = Answer(206, headers, bytes(size))
        await send(request, answer, writer)
        if wrong == "no length" and _SIGNATURE in request.target:
            writer.close()

    bad.on_file = answer_wrongly
    assert await _fetch(bad, tmp_path) == CONTENT
    assert [is_signed for is_signed, _ in _list_reads(bad)] == [True, False]


async def test_an_object_that_changes_after_the_list(bad: BadServer, tmp_path: Path) -> None:
    async def change(request: Request, answer: Answer, writer: Writer) -> None:
        await send(request, Answer(answer.status, answer.headers | {"ETag": '"new"'}, answer.body), writer)

    bad.on_file = change
    with pytest.raises(Failure) as raised:
        await _fetch(bad, tmp_path)
    assert raised.value.reason == Reason.CHANGED


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
async def test_a_redirect_to_a_metadata_server_is_not_followed(bad: BadServer, host: str, tmp_path: Path) -> None:
    async def redirect(request: Request, _: Answer, writer: Writer) -> None:
        headers = {"Location": f"http://{host}/latest{request.target}", "Content-Length": "0"}
        await send(request, Answer(307, headers, b""), writer)

    bad.on_file = redirect
    with pytest.raises(Failure, match="which Conch never contacts") as raised:
        await _fetch(bad, tmp_path)
    _expect_no_secret(raised.value.message)


async def test_another_host_gets_no_credentials(bad: BadServer, tmp_path: Path) -> None:
    async with serve() as other:

        async def redirect(request: Request, _: Answer, writer: Writer) -> None:
            headers = {"Location": f"{other.url}/m/model.onnx", "Content-Length": "0"}
            await send(request, Answer(307, headers, b""), writer)

        bad.on_file = redirect
        assert await _fetch(bad, tmp_path) == CONTENT
        assert other.requests
        for request in other.requests:
            _expect_no_secret(f"{request.target} {request.headers}")
            assert not {"authorization", "x-amz-security-token", "referer"} & set(request.headers)


async def test_a_signed_url_is_in_no_message(
    bad: BadServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    signed: list[str] = []

    async def refuse(request: Request, _: Answer, writer: Writer) -> None:
        signed.extend([request.target] if _SIGNATURE in request.target else [])
        text = f"<Error><Code>AccessDenied</Code><Message>No access to {bad.url}{signed[0]}</Message></Error>".encode()
        await send(request, Answer(403, {"Content-Length": str(len(text))}, text), writer)

    bad.on_file = refuse
    with pytest.raises(Failure) as raised:
        await _fetch(bad, tmp_path)
    assert raised.value.reason == Reason.ACCESS_DENIED
    printed = capfd.readouterr()
    _expect_no_secret(raised.value.message + printed.out + printed.err + caplog.text)
    _expect_no_secret(_read_all(tmp_path))


async def test_a_store_without_credentials_gets_no_signed_url(bad: BadServer, tmp_path: Path) -> None:
    source = bad.open_source("s3")
    await Fetch(source, tmp_path).run(await source.list_files())
    assert [is_signed for is_signed, _ in _list_reads(bad)] == [False]
    assert build_file(bad.requests[-1]).body == CONTENT


def _read_all(folder: Path) -> str:
    return "".join(file.read_bytes().decode(errors="replace") for file in folder.rglob("*") if file.is_file())


def _expect_no_secret(text: str) -> None:
    assert _SECRET not in text
    assert "X-Amz-" not in text
