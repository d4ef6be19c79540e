"""A proxy on loopback, through which the S3 client makes all its connections.

The client resolves names and follows redirects itself. Here the address of each connection is checked, a redirect to
another host gets no credentials, and a certificate that the client refuses is checked by OpenSSL: the client's TLS
library (rustls) refuses one that is an authority and a server's at once, which is what `openssl req -x509` makes, and
one without alternative names. OpenSSL, and so curl, accepts both.

For an https:// endpoint the client's TLS goes through as it is (CONNECT). Where OpenSSL is needed, the client gets an
http:// endpoint, and its requests leave the pod over TLS only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from conch_agent.sources.connection import TIMEOUT, CheckedResolver
from conch_agent.sources.s3_settings import Endpoint
from conch_agent.tasks import run_until_one_ends
from conch_contract.addresses import check_address

_BLOCK: Final = 256 * 1024
_LONGEST_HEAD: Final = 64 * 1024
_CREDENTIALS: Final = frozenset({"authorization", "x-amz-security-token", "cookie"})

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusedError(Exception):
    """A connection is not made. The message is a sentence without its full stop."""


def plain_url(endpoint: Endpoint) -> str:
    """Return the endpoint's URL as http://, with its port.

    >>> plain_url(Endpoint("https://store/s3", "store", 443))
    'http://store:443/s3'
    """
    parts = urlsplit(endpoint.url)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"http://{host}:{endpoint.port}{parts.path}"


class StoreProxy:
    """The proxy, while `run` runs."""

    def __init__(
        self,
        endpoint: Endpoint,
        refused: Callable[[str], None],
        *,
        context: ssl.SSLContext | None = None,
        has_token: bool = False,
    ) -> None:
        """Prepare it.

        Args:
            endpoint: of the store.
            refused: called with the reason why a connection is not made, a sentence without its full stop.
            context: with which OpenSSL checks the store; None: the client does, or there is no TLS.
            has_token: whether requests have a session token, which the client sends to wherever it is redirected.
        """
        self.url = ""
        self._refused = refused
        self._endpoint = endpoint
        self._context = context
        self._has_token = has_token
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[StoreProxy, None]:
        """Serve while the block runs."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_BLOCK)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection of the client. A failure ends it, and the source connects by itself to find the reason."""
        try:
            head = await _read_head(reader)
            if head.startswith(b"CONNECT "):
                await self._tunnel(head, reader, writer)
            else:
                await self._forward(head, reader, writer)
        except RefusedError as error:
            self._refused(str(error))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand TLS on as it is."""
        parts = urlsplit(f"//{head.split()[1].decode()}")
        host, port = parts.hostname or "", parts.port or 443
        if self._has_token and not self._is_store(host, port):
            raise RefusedError(f"the store redirects to {host}, to which the session token would be sent")
        upstream = await _connect(host, port, None)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await run_until_one_ends(_pump(reader, upstream[1]), _pump(upstream[0], writer))
        finally:
            upstream[1].transport.abort()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand requests on, one after the other; the client sends none before it has the last answer."""
        upstream: _Streams | None = None
        answers: asyncio.Task[None] | None = None
        at = ("", 0)
        try:
            while head:
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                parts = urlsplit(target)
                host, port = parts.hostname or "", parts.port or 80
                if method not in {"GET", "HEAD"}:
                    raise RefusedError(f"the client sends a {method} request, which reads nothing")
                if self._context is not None and not self._is_store(host, port):
                    raise RefusedError(f"the store redirects to {host} without TLS")
                if upstream is None or at != (host, port):
                    if upstream is not None and answers is not None:
                        answers.cancel()
                        upstream[1].transport.abort()
                    upstream, at = await _connect(host, port, self._context), (host, port)
                    answers = asyncio.create_task(_pump_and_close(upstream[0], writer))
                path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
                upstream[1].write(_origin_form(head, method, path, strip=not self._is_store(host, port)))
                await upstream[1].drain()
                head = await _read_head(reader)
        finally:
            if upstream is not None and answers is not None:
                answers.cancel()
                upstream[1].transport.abort()

    def _is_store(self, host: str, port: int) -> bool:
        own = self._endpoint
        return port == own.port and (host == own.host or host.endswith(f".{own.host}"))


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """Return a request's first line and headers."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    if len(head) > _LONGEST_HEAD:
        raise ValueError("the request has too many headers")
    return head


def _origin_form(head: bytes, method: str, path: str, *, strip: bool) -> bytes:
    """Return a request as a server gets it; without credentials if `strip`."""
    lines = head.split(b"\r\n")[1:]
    kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
    if strip:
        kept = [line for line in kept if line.partition(b":")[0].strip().lower().decode() not in _CREDENTIALS]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *kept])


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> _Streams:
    """Connect to a host, unless it is a metadata server.

    Raises:
        RefusedError: it is one.
        OSError: it cannot be reached.
    """
    try:
        check_address(host)
        async with asyncio.timeout(TIMEOUT):
            found = await CheckedResolver().resolve(host, port, socket.AF_UNSPEC)
    except ValueError as error:
        raise RefusedError(f"{error}, and the store, or a redirect of it, leads there") from error
    last: Exception = OSError(f"{host} has no address")
    for address in (one["host"] for one in found):
        try:
            async with asyncio.timeout(TIMEOUT):
                return await asyncio.open_connection(
                    address, port, limit=_BLOCK, ssl=context, server_hostname=host if context else None
                )
        except (OSError, TimeoutError) as error:
            last = error
    raise last


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes until it ends."""
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()


async def _pump_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pump(reader, writer)
    writer.close()
