"""A server on loopback that is store, hub and web server at once, whose answers a test makes wrong, byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from conch_agent.sources.base import Source
from conch_agent.sources.gs import GsSource
from conch_agent.sources.hf import HfSource
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.s3 import S3Source
from tests.support.hub import hash_blob

CONTENT = bytes(range(256)) * 1000
COMMIT = "a" * 40
ETAG = f'"{hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()}"'


@dataclass(frozen=True)
class Request:
    """A request to the server."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def is_file(self) -> bool:
        """True for the bytes of the file, False for lists and revisions."""
        return "model.onnx" in unquote(self.target) and self.method == "GET"

    @property
    def range(self) -> tuple[int, int]:
        """The first byte that is requested, and the one after the last."""
        start, _, end = self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        return int(start), min(int(end or len(CONTENT)) + 1, len(CONTENT))


@dataclass
class Answer:
    """An answer, which a fault may change."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {self.status} Words", *(f"{name}: {value}" for name, value in self.headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Fault = Callable[[Request, Answer, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class BadServer:
    """The server.

    Attributes:
        url: Its URL.
        requests: Those that it got.
        names: The names of its files, relative to the source's root.
        on_file: Answers requests for the bytes of a file.
        on_list: Answers all other requests.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: ["model.onnx"])
    on_file: Fault | None = None
    on_list: Fault | None = None

    def open_source(self, scheme: str) -> Source:
        """Return the source of the server's files."""
        if scheme == "s3":
            return S3Source("s3://b/m", {"AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true"})
        if scheme == "gs":
            return GsSource("gs://b/m", {"GOOGLE_BASE_URL": self.url, "GOOGLE_ALLOW_HTTP": "true"})
        if scheme == "hf":
            return HfSource("hf://o/n/m", {"HF_ENDPOINT": self.url, "HF_ALLOW_HTTP": "true"})
        return HttpsSource(f"{self.url}/m/model.onnx", {})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                request = Request(method, target, headers)
                self.requests.append(request)
                fault = self.on_file if request.is_file else self.on_list
                await (fault or send)(request, self._build_answer(request), writer)
                await writer.drain()
        writer.close()

    def _build_answer(self, request: Request) -> Answer:
        if request.is_file:
            return build_file(request)
        if request.target.startswith("/api/"):
            is_tree = "/tree/" in request.target
            value: object = [_describe(name) for name in self.names] if is_tree else {"sha": COMMIT}
            return build_answer(json.dumps(value).encode())
        if request.method == "HEAD":
            return Answer(404, {"Content-Length": "0"}, b"")
        return build_answer(build_page(self.names))


def build_page(names: list[str], following: str = "") -> bytes:
    """Return a page of a store's list."""
    token = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    contents = "".join(
        f"<Contents><Key>m/{name}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>{ETAG}</ETag>"
        f"<Size>{len(CONTENT)}</Size></Contents>"
        for name in names
    )
    return (
        f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(bool(following)).lower()}</IsTruncated>{token}'
        f"{contents}</ListBucketResult>"
    ).encode()


def build_answer(body: bytes) -> Answer:
    """Return an answer with a body."""
    return Answer(200, {"Content-Length": str(len(body))}, body)


def build_file(request: Request, content: bytes = CONTENT) -> Answer:
    """Return the right answer to a request for a file."""
    headers = {"ETag": ETAG, "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    if "range" not in request.headers:
        return Answer(200, headers | {"Content-Length": str(len(content))}, content)
    start, end = request.range
    headers |= {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}", "Content-Length": str(end - start)}
    return Answer(206, headers, content[start:end])


def _describe(name: str) -> dict[str, object]:
    return {"type": "file", "path": f"m/{name}", "oid": hash_blob(CONTENT), "size": len(CONTENT)}


async def send(_: Request, answer: Answer, writer: asyncio.StreamWriter) -> None:
    """Send an answer as it is."""
    writer.write(answer.head + answer.body)


async def send_gzip(_: Request, answer: Answer, writer: asyncio.StreamWriter) -> None:
    """Send an answer compressed, which no request accepts."""
    body = gzip.compress(answer.body)
    headers = answer.headers | {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
    writer.write(Answer(answer.status, headers, body).head + body)


@asynccontextmanager
async def serve(tls: tuple[Path, Path] | None = None, host: str = "127.0.0.1") -> AsyncGenerator[BadServer, None]:
    """Serve at an address of the machine, by default on loopback."""
    bad = BadServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context and tls:
        context.load_cert_chain(*tls)
    server = await asyncio.start_server(bad.serve, host, 0, ssl=context)
    bad.url = f"http{'s' if tls else ''}://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield bad
    finally:
        server.close()
