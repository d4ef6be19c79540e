"""Pages of pods: what a pod may answer in place of one, and that an honest one is read however it comes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import repeat

import pytest

from conch.signals.page import PageError, read_page

SECONDS = 10.0
PAGE = b"nv_inference_count 1\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
PART = b"Content-Type:multipart/a;boundary=%d\r\r--%d\r"  # for the parser of e-mail, a part in the one before
ANSWERS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "interim answers without end": (lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "HTTP status 100"),
    "headers without end": (lambda: repeat(b"X-One: two\r\n" * 100), "does not answer /metrics by HTTP|KiB of headers"),
    "headers of HTTP without end": (
        lambda: (each for each in (b"HTTP/1.1 200 OK\r\n", *[b"X-One: two\r\n" * 100] * 10_000)),
        "more than 16 KiB of headers",
    ),
    "too many headers": (
        lambda: iter([b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000 + b"\r\n" + PAGE]),
        "headers that cannot be read",
    ),
    "chunks": (
        lambda: iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1_000]),
        "headers that HTTP/1.0 does not have",
    ),
    "a length that is no number": (
        lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", PAGE]),
        "headers that HTTP/1.0 does not have",
    ),
    "a length of 5,000 digits": (
        lambda: iter([b"HTTP/1.0 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n"]),
        "more than 1 MiB",
    ),
    "a length of zeros and 5,000 digits": (
        lambda: iter([b"HTTP/1.0 200 OK\r\nContent-Length: " + b"0" * 18 + b"9" * 5_000 + b"\r\n\r\n"]),
        "more than 1 MiB",
    ),
    "headers with parts of MIME": (
        lambda: iter([b"HTTP/1.0 200 OK\r\n", *(PART % (each, each) for each in range(300)), b"\r\n\r\n", PAGE]),
        "headers that cannot be read",
    ),
    "a header of two lines": (
        lambda: iter([b"HTTP/1.0 200 OK\r\nX-One: two\r\n three\r\n\r\n", PAGE]),
        "headers that cannot be read",
    ),
    "a header without a name": (
        lambda: iter([b"HTTP/1.0 200 OK\r\n: one\r\n\r\n", PAGE]),
        "headers that cannot be read",
    ),
    "two lengths": (
        lambda: iter([LENGTH[:-2] % 1 + b"content-length: 2\r\n\r\n", PAGE]),
        "headers that HTTP/1.0 does not have",
    ),
    "less than its length": (lambda: iter([LENGTH % 1_000, PAGE]), "ends its answer to /metrics too early"),
    "a body without end": (lambda: repeat(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 100_000), "more than 1 MiB"),
    "a length of 2 MiB": (lambda: iter([LENGTH % (2 << 20), b"a" * (2 << 20)]), "more than 1 MiB"),
    "another protocol": (lambda: iter([b"SSH-2.0-OpenSSH\r\n\r\n"]), "does not answer /metrics by HTTP"),
    "another version": (lambda: iter([b"HTTP/2 200\r\n\r\n", PAGE]), "does not answer /metrics by HTTP"),
    "an error": (lambda: iter([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]), "HTTP status 503"),
    "another place": (lambda: iter([b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n"]), "status 302"),
    "nothing": (lambda: iter([]), "too early"),
    "no text": (lambda: iter([LENGTH % 1, b"\xff"]), "cannot be read"),
}


@asynccontextmanager
async def serve(pieces: Callable[[], Iterator[bytes]], host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server that answers each request with some pieces, as fast as they are taken; yield its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces():
                writer.write(piece)
                await writer.drain()
            writer.close()
        except ConnectionError:
            pass  # the client has had enough

    server = await asyncio.start_server(answer, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("pieces", "reason"), ANSWERS.values(), ids=ANSWERS)
async def test_what_is_no_page_is_refused(pieces: Callable[[], Iterator[bytes]], reason: str) -> None:
    async with serve(pieces) as port:
        with pytest.raises(PageError, match=reason):
            await read_page("127.0.0.1", port, seconds=SECONDS)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n\r\n", LENGTH % len(PAGE), b"HTTP/1.1 200 \r\ncontent-length:%d \t\r\n\r\n" % len(PAGE)],
    ids=["until the end", "length", "blanks"],
)
async def test_a_page_is_read_however_it_is_cut(host: str, head: bytes) -> None:
    answer = head + PAGE
    for pieces in ([answer], [answer[:5], answer[5:40], answer[40:]], [bytes([each]) for each in answer]):
        async with serve(partial(iter, pieces), host) as port:
            assert await read_page(host, port, seconds=SECONDS) == PAGE.decode()


async def test_a_page_ends_with_its_length_though_the_connection_stays_open() -> None:
    over = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LENGTH % len(PAGE) + PAGE + b"what comes later")
        await over.wait()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await read_page("127.0.0.1", port, seconds=SECONDS) == PAGE.decode()
        over.set()


async def test_a_pod_that_does_not_answer_in_time_is_left() -> None:
    over = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(PageError, match=rf"does not answer at port {port} \(TimeoutError\)"):
            await read_page("127.0.0.1", port, seconds=0.2)
        over.set()


async def test_an_answer_of_single_bytes_is_read_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, reads = asyncio.get_running_loop(), 0
    receive = loop.sock_recv

    async def count(connection: socket.socket, most: int) -> bytes:
        nonlocal reads
        reads += 1
        return await receive(connection, most)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0)

    monkeypatch.setattr(loop, "sock_recv", count)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        with pytest.raises(PageError, match=r"TimeoutError|KiB of headers"):
            await read_page("127.0.0.1", server.sockets[0].getsockname()[1], seconds=0.5)
    assert 0 < reads <= 20, "the pauses between reads grow"
