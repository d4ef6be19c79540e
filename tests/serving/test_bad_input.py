"""What a server may answer in place of a model: each kind for each scheme, with the message that the status has."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources import connection, http_client, listing_limit, pace
from conch_agent.sources.base import Source
from tests.serving.bad_server import (
    CONTENT,
    Answer,
    BadServer,
    Request,
    build_answer,
    build_file,
    build_page,
    send,
    send_gzip,
    serve,
)

ALL = pytest.mark.parametrize("scheme", ["s3", "gs", "https", "hf"])
STORES = pytest.mark.parametrize("scheme", ["s3", "gs"])
STREAMS = pytest.mark.parametrize("scheme", ["https", "hf"])
LISTS = pytest.mark.parametrize("scheme", ["s3", "gs", "hf"])
SECOND = 1.0  # of all limits in time, so that the tests are short
Writer = asyncio.StreamWriter


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_HEAD_SECONDS", 2 * SECOND)
    monkeypatch.setattr(http_client, "_CONNECT", aiohttp.ClientTimeout(total=None, connect=SECOND, sock_connect=SECOND))
    monkeypatch.setattr(connection, "TIMEOUT", SECOND)
    monkeypatch.setattr(pace, "SECONDS", SECOND)


@pytest.fixture
async def bad() -> AsyncGenerator[BadServer, None]:
    async with serve() as server:
        yield server


async def _fetch(source: Source, folder: Path) -> bytes:
    fetched = await Fetch(source, folder).run(await source.list_files())
    return (fetched.files / "model.onnx").read_bytes()


async def _expect(source: Source, folder: Path, reason: Reason, pattern: str) -> None:
    """Fetch, and compare the failure."""
    with pytest.raises(Failure) as raised:
        await _fetch(source, folder)
    assert raised.value.reason == reason, raised.value.message
    assert raised.value.message.startswith(source.uri)
    assert re.search(pattern, raised.value.message), raised.value.message
    assert len(raised.value.message) < 1000


@ALL
async def test_a_good_file_is_fetched(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    assert await _fetch(bad.open_source(scheme), tmp_path) == CONTENT


@STREAMS
async def test_gzip_that_was_not_requested(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    bad.on_file = send_gzip
    pattern = (
        r"sent its answer with Content-Encoding gzip, which was not requested\. Turn compression off in the server, or"
        r" in the proxy before it\.$"
    )
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


@LISTS
async def test_a_list_in_gzip_that_was_not_requested(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    bad.on_list = send_gzip
    pattern = r"sent its answer with Content-Encoding gzip, which was not requested\. Turn compression off"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


@STORES
async def test_an_object_with_the_content_encoding_gzip_is_fetched_as_it_is_stored(
    bad: BadServer, scheme: str, tmp_path: Path
) -> None:
    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        writer.write(Answer(right.status, right.headers | {"Content-Encoding": "gzip"}, b"").head + right.body)

    bad.on_file = answer
    assert await _fetch(bad.open_source(scheme), tmp_path) == CONTENT


PAGE = b"<html><title>Log in</title></html>"
PAGES = {
    "s3": "Correct the store, or the proxy before it",
    "gs": "Correct the store, or the proxy before it",
    "https": "Write a URL that needs no login, and that is the file's own, not that of a page about it",
    "hf": "Correct HF_ENDPOINT in the storage Secret, or that hub",
}


@ALL
async def test_a_page_in_place_of_the_file(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        headers = {"Content-Type": "text/html", "ETag": '"a"', "Content-Length": str(len(PAGE))}
        writer.write(Answer(200, headers, PAGE).head + PAGE)

    bad.on_file = answer
    pattern = rf": 127\.0\.0\.1:\d+ answered with a page \(Log in\) in place of the file\. {PAGES[scheme]}\.$"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


@STORES
async def test_a_store_that_ignores_ranges(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(build_file(Request("GET", "/", {})).head + CONTENT)

    bad.on_file = answer
    pattern = "answers a request for a range with HTTP 200, so with the whole object. Correct the store, or the proxy"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


@STREAMS
async def test_a_server_that_ignores_ranges_sends_the_file_again(bad: BadServer, scheme: str) -> None:
    source = bad.open_source(scheme)
    listing = await source.list_files()
    [item] = listing.items

    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(build_file(Request("GET", "/", {})).head + CONTENT)

    bad.on_file = answer
    assert b"".join([bytes(block) async for block in source.read(item, 1000)]) == CONTENT[1000:]
    assert bad.requests[-1].headers["range"] == "bytes=1000-"


@ALL
async def test_another_range_than_was_requested(bad: BadServer, scheme: str) -> None:
    source = bad.open_source(scheme)
    [item] = (await source.list_files()).items

    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        end = request.range[1]
        headers = right.headers | {"Content-Range": f"bytes 0-{end - 1}/{len(CONTENT)}", "Content-Length": str(end)}
        writer.write(Answer(206, headers, b"").head + CONTENT[:end])

    bad.on_file = answer
    words = "sent the range 'bytes 0-255999/256000' of the file, and the bytes from 1000 were requested. Correct the"
    with pytest.raises(Failure, match=words):
        assert [block async for block in source.read(item, 1000)]


@pytest.mark.parametrize("sent", ["", "bytes 1000-x/y", "items 1000-2000/256000", "bytes 1000-999999999999999999999/*"])
@ALL
async def test_a_range_that_is_none(bad: BadServer, scheme: str, sent: str) -> None:
    source = bad.open_source(scheme)
    [item] = (await source.list_files()).items

    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        writer.write(Answer(206, right.headers | {"Content-Range": sent}, b"").head + right.body)

    bad.on_file = answer
    with pytest.raises(Failure, match="of the file, and the bytes from 1000 were requested"):
        assert [block async for block in source.read(item, 1000)]


OTHER_DIGEST = r": model\.onnx was fetched with the digest git:[0-9a-f]{40}, and git:[0-9a-f]{40} is declared; "
REMEDY = (
    "the agent fetches it again. If this message stays, a server or proxy between changes or truncates files: correct"
    " it, or upload the file again"
)
CHANGES = {
    "s3": (Reason.CHANGED, r": model\.onnx changed while it was fetched; the agent fetches the new one\.$"),
    "gs": (Reason.CHANGED, r": model\.onnx changed while it was fetched; the agent fetches the new one\.$"),
    "https": (Reason.CHANGED, r" changed while it was fetched; the agent fetches the new one\.$"),
    "hf": (Reason.DIGEST_MISMATCH, f"{OTHER_DIGEST}{REMEDY}"),
}


@ALL
async def test_a_file_that_changes_while_it_is_read(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        is_first = request.headers.get("range") == "bytes=0-0"  # the request by which https lists
        body = right.body if is_first else right.body[::-1]
        headers = right.headers if is_first else right.headers | {"ETag": '"other"'}
        writer.write(Answer(right.status, headers, b"").head + body)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, *CHANGES[scheme])


@ALL
async def test_less_than_the_content_length(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        writer.write(right.head + right.body[:-1])
        writer.close()

    bad.on_file = answer
    pattern = r"ended its answer before it was complete\. Read the server's log"
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, pattern)


SHORT = {
    "s3": r"the store sent 255999 bytes of m/model\.onnx, and 256000 were requested",
    "gs": r"the store sent 255999 bytes of m/model\.onnx, and 256000 were requested",
    "https": r"model\.onnx ended after 255999 of 256000 bytes",
    "hf": r"model\.onnx ended after 255999 of 256000 bytes",
}


@ALL
async def test_more_than_the_content_length(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        length = max(1, len(right.body) - 1)
        writer.write(Answer(right.status, right.headers | {"Content-Length": str(length)}, b"").head + right.body)
        writer.close()

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, SHORT[scheme])


@ALL
async def test_redirects_in_a_circle(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(request: Request, _: Answer, writer: Writer) -> None:
        headers = {"Location": request.target, "Content-Length": "0"}
        writer.write(Answer(302, headers, b"").head)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, "the server redirects more than 5 times")
    assert len(bad.requests) < 12


async def _send_without_end(writer: Writer, block: bytes, seconds: float = 0.01) -> None:
    while True:
        writer.write(block)
        await writer.drain()
        await asyncio.sleep(seconds)


@ALL
async def test_interim_answers_without_end(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        await _send_without_end(writer, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

    bad.on_file = answer
    pattern = r"did not complete the headers of its answer in 2 s\. Read the server's log"
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, pattern)


@ALL
async def test_headers_that_come_byte_by_byte(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        await _send_without_end(writer, b"a", 0.1)

    bad.on_file = answer
    pattern = r"did not complete the headers of its answer in 2 s\. Read the server's log"
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, pattern)


@pytest.mark.parametrize("line", [b"a" * 60_000, b"X: a\r\n" * 10_000])
@ALL
async def test_headers_without_end(bad: BadServer, scheme: str, tmp_path: Path, line: bytes) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        await _send_without_end(writer, line)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, "does not answer in HTTP")


@STORES
async def test_more_than_was_requested(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        writer.write(Answer(206, right.headers | {"Content-Length": "300000000"}, b"").head + right.body)
        await _send_without_end(writer, right.body, 0)

    bad.on_file = answer
    pattern = "sends an answer of more than 256000 bytes, which are the most that it may have"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


LONG = {
    "s3": "sends a range of an object without its Content-Length",
    "gs": "sends a range of an object without its Content-Length",
    "https": r"declared 256000 bytes for model\.onnx, and sends more",
    "hf": r"declared 256000 bytes for model\.onnx, and sends more",
}


@ALL
async def test_a_file_without_end(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        if request.headers.get("range") == "bytes=0-0":
            await send(request, right, writer)
            return
        headers = {name: value for name, value in right.headers.items() if name != "Content-Length"}
        writer.write(Answer(right.status, headers | {"Transfer-Encoding": "chunked"}, b"").head)
        await _send_without_end(writer, b"10000\r\n" + b"a" * 0x10000 + b"\r\n", 0)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, LONG[scheme])


@LISTS
async def test_a_list_without_end(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(Answer(200, {"Transfer-Encoding": "chunked"}, b"").head)
        await _send_without_end(writer, b"10000\r\n" + b" " * 0x10000 + b"\r\n", 0)

    bad.on_list = answer
    bound = 4194304 if scheme == "hf" else 8388608
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, f"more than {bound} bytes")


@ALL
async def test_an_error_without_end_keeps_little_memory(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(_: Request, __: Answer, writer: Writer) -> None:
        writer.write(Answer(400, {"Transfer-Encoding": "chunked"}, b"").head)
        await _send_without_end(writer, b"100000\r\n" + b"<a>" + b"a" * (0x100000 - 3) + b"\r\n", 0)

    bad.on_file = bad.on_list = answer
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, "answered HTTP 400")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


STALL = r"sent \d+ bytes in 1 s, after \d+ before; at least 61440 are expected\. The agent retries and resumes"


@pytest.mark.parametrize("pause", [0.1, 60], ids=["drop by drop", "not at all"])
@ALL
async def test_a_file_that_stalls(bad: BadServer, scheme: str, tmp_path: Path, pause: float) -> None:
    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        if request.headers.get("range") == "bytes=0-0":
            await send(request, right, writer)
            return
        writer.write(right.head + right.body[:100_000])
        await _send_without_end(writer, b"a", pause)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, STALL)


@STREAMS
async def test_after_a_stall_a_fetch_resumes_at_the_byte(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        if request.headers.get("range") == "bytes=0-0":
            await send(request, right, writer)
            return
        writer.write(right.head + right.body[:100_000])
        await asyncio.sleep(60)

    bad.on_file = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, STALL)
    bad.on_file = None
    assert await _fetch(bad.open_source(scheme), tmp_path) == CONTENT
    assert bad.requests[-1].headers["range"] == "bytes=100000-"


@ALL
async def test_a_slow_line_that_is_steady_is_no_stall(
    bad: BadServer, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0.5)

    async def answer(_: Request, right: Answer, writer: Writer) -> None:
        writer.write(right.head)
        for start in range(0, len(right.body), 8_000):
            await asyncio.sleep(0.04)
            writer.write(right.body[start : start + 8_000])

    bad.on_file = answer
    assert await _fetch(bad.open_source(scheme), tmp_path) == CONTENT


@LISTS
async def test_pages_that_come_slowly_for_ever(
    bad: BadServer, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_limit, "SECONDS", SECOND)

    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        await asyncio.sleep(0.2)
        number = len(bad.requests)
        if "/tree/" in request.target:
            right = build_answer(b"[]")
            right.headers["Link"] = f'<{bad.url}{request.target.split("?")[0]}?cursor={number}>; rel="next"'
        elif "/revision/" not in request.target:
            right = build_answer(build_page([f"{number}.txt"], following=str(number)))
        await send(request, right, writer)

    bad.on_list = answer
    pattern = r"the server listed \d+ files in 1 s, and the list has not ended\. The agent retries"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


SAME_PAGE = {
    "s3": "lists the same page again and again",
    "gs": "lists the same page again and again",
    "hf": r"links the page http://127\.0\.0\.1:\d+/api/models/o/n/tree/a{40}/m\?recursive=true of its list twice",
}


@LISTS
async def test_a_page_that_leads_to_itself(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        if "/tree/" in request.target:
            right.headers["Link"] = f'<{bad.url}{request.target}>; rel="next"'
        elif "/revision/" not in request.target:
            right = build_answer(build_page(["a.txt"], following="again"))
        await send(request, right, writer)

    bad.on_list = answer
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, SAME_PAGE[scheme])
    assert len(bad.requests) < 6


@LISTS
async def test_a_path_that_is_listed_twice(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    bad.names = ["model.onnx", "a.txt", "model.onnx"]
    pattern = r"the server lists 'model\.onnx' more than once, so its content is not known"
    await _expect(bad.open_source(scheme), tmp_path, Reason.FETCH_FAILED, pattern)


@LISTS
async def test_a_file_that_is_also_a_folder(bad: BadServer, scheme: str, tmp_path: Path) -> None:
    bad.names = ["model.onnx", "model.onnx/a"]
    pattern = r"holds both a file 'model\.onnx' of 256000 bytes and files below a folder of that name"
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNSAFE_PATH, pattern)


@LISTS
async def test_names_that_differ_in_case_or_unicode_form_are_different_files(bad: BadServer, scheme: str) -> None:
    bad.names = ["model.onnx", "MODEL.onnx", "é", "e\u0301"]
    assert len((await bad.open_source(scheme).list_files()).items) == 4


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("é" * 128, "of which one part has 256 bytes: a file system holds names of up to 255 bytes"),
        ("/".join(["é" * 127] * 5), "which has 1274 bytes: the agent fetches paths of up to 1024 bytes"),
    ],
)
@LISTS
async def test_a_name_that_no_file_can_have(
    bad: BadServer, scheme: str, tmp_path: Path, name: str, pattern: str
) -> None:
    bad.names = ["model.onnx", name]
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNSAFE_PATH, pattern)
    assert not any(request.is_file for request in bad.requests), "it is found before the download"


@pytest.mark.parametrize("letter", ["\t", "\n", "\x01", "\x7f"])
@LISTS
async def test_a_name_with_a_control_character(bad: BadServer, scheme: str, tmp_path: Path, letter: str) -> None:
    bad.names = ["model.onnx", f"a{letter}b" if scheme == "hf" else f"a&#{ord(letter)};b"]
    shown = f"a{letter}b" if scheme == "hf" else f"m/a{letter}b"
    with pytest.raises(Failure) as raised:
        await _fetch(bad.open_source(scheme), tmp_path)
    assert raised.value.reason == Reason.UNSAFE_PATH, raised.value.message
    assert raised.value.message == (
        f"{bad.open_source(scheme).uri} holds the name {shown!r}, which would leave its folder or cannot be a"
        " file's: a model's files need plain relative names. Rename or remove it."
    )
    assert not any(request.is_file for request in bad.requests), "it is found before the download"


@ALL
async def test_tls_that_stalls_in_the_handshake(scheme: str, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
    bad = BadServer(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    pattern = r"no connection to 127\.0\.0\.1:\d+ was complete within 1 s\. Check network policies and firewalls"
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, pattern)
    server.close()


@ALL
async def test_a_name_whose_address_changes_to_that_of_a_metadata_server(
    bad: BadServer, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    addresses = iter(["127.0.0.1"])

    def change(host: str, *args: object, **options: object) -> object:
        found = host if host != "store.example" else next(addresses, "169.254.169.254")
        return resolve(found, *args, **options)  # type: ignore[arg-type]

    async def answer(request: Request, right: Answer, writer: Writer) -> None:
        await send(request, right, writer)
        writer.close()

    monkeypatch.setattr(socket, "getaddrinfo", change)
    bad.on_list = bad.on_file = answer
    bad.url = bad.url.replace("127.0.0.1", "store.example")
    await _expect(bad.open_source(scheme), tmp_path, Reason.UNREACHABLE, "which Conch never contacts")
    assert bad.requests
