"""A proxy on loopback for all connections of the client of an object store.

The client resolves names and follows redirects itself. The proxy checks the address of each connection, removes the
credentials of a request to another host, and checks with OpenSSL a certificate that the client refuses: the client's
TLS library (rustls) refuses a server's certificate that is also an authority, which `openssl req -x509` makes, and one
without alternative names. OpenSSL, and so curl, accepts both.

For an https:// endpoint the proxy forwards the client's TLS (CONNECT). If OpenSSL is needed, the client has an http://
endpoint, and the proxy sends its requests over TLS only.
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
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.tasks import run_until_one_ends
from conch_contract.addresses import check_address

_BLOCK: Final = 256 * 1024
_LONGEST_HEAD: Final = 64 * 1024
# The client's Referer header has the URL that redirected, and so a token in its query (Azure's SAS).
_CREDENTIALS: Final = frozenset({"authorization", "x-amz-security-token", "cookie", "referer"})

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusedError(Exception):
    """The proxy refuses a connection. The message is a sentence without its full stop."""


def plain_url(endpoint: Endpoint) -> str:
    """Return the endpoint's URL as http://, with its port.

    Args:
        endpoint: The endpoint.

    >>> plain_url(Endpoint("https://store/s3", "store", 443))
    'http://store:443/s3'
    """
    parts = urlsplit(endpoint.url)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"http://{host}:{endpoint.port}{parts.path}"


class StoreProxy:
    """The proxy, which listens while `run` is active."""

    def __init__(
        self,
        endpoint: Endpoint,
        on_refusal: Callable[[str], None],
        *,
        context: ssl.SSLContext | None = None,
        has_token: bool = False,
    ) -> None:
        """Create the proxy.

        Args:
            endpoint: Endpoint of the store.
            on_refusal: Called with the reason of a refused connection, a sentence without its full stop.
            context: Context with which OpenSSL checks the store; None: the client checks it, or there is no TLS.
            has_token: True if requests have a token that the client also sends after a redirect.
        """
        self.url = ""
        self._on_refusal = on_refusal
        self._endpoint = endpoint
        self._context = context
        self._has_token = has_token
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[StoreProxy, None]:
        """Listen while the block runs."""
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
        """Serve a connection of the client. After a failure the source connects itself to find the cause."""
        try:
            head = await _read_head(reader)
            if head.startswith(b"CONNECT "):
                await self._tunnel(head, reader, writer)
            else:
                await self._forward(head, reader, writer)
        except RefusedError as error:
            self._on_refusal(str(error))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the client's TLS connection."""
        parts = urlsplit(f"//{head.split()[1].decode()}")
        host, port = parts.hostname or "", parts.port or 443
        if self._has_token and not self._is_store(host, port):
            raise RefusedError(f"the store redirects to {host}, to which the token of the request would be sent")
        upstream = await _connect(host, port, None)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await run_until_one_ends(_copy(reader, upstream[1]), _copy(upstream[0], writer))
        finally:
            upstream[1].transport.abort()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward requests one after the other. The client waits for an answer before it sends the next request."""
        upstream: _Streams | None = None
        answers: asyncio.Task[None] | None = None
        address = ("", 0)
        try:
            while head:
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                parts = urlsplit(target)
                host, port = parts.hostname or "", parts.port or 80
                if method not in {"GET", "HEAD"}:
                    raise RefusedError(f"the client sends a {method} request, which reads nothing")
                if self._context is not None and not self._is_store(host, port):
                    raise RefusedError(f"the store redirects to {host} without TLS")
                if upstream is None or address != (host, port):
                    if upstream is not None and answers is not None:
                        answers.cancel()
                        upstream[1].transport.abort()
                    upstream, address = await _connect(host, port, self._context), (host, port)
                    answers = asyncio.create_task(_copy_and_close(upstream[0], writer))
                path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
                upstream[1].write(_rewrite_head(head, method, path, strip=not self._is_store(host, port)))
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


def _rewrite_head(head: bytes, method: str, path: str, *, strip: bool) -> bytes:
    """Return the head of a request for the server; without credentials if `strip`."""
    lines = head.split(b"\r\n")[1:]
    headers = [line for line in lines if not line.lower().startswith(b"proxy-")]
    if strip:
        headers = [line for line in headers if line.partition(b":")[0].strip().lower().decode() not in _CREDENTIALS]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *headers])


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> _Streams:
    """Connect to a host that is no metadata server.

    Raises:
        RefusedError: The host is a metadata server.
        OSError: The host cannot be reached.
    """
    try:
        check_address(host)
        async with asyncio.timeout(TIMEOUT):
            found = await CheckedResolver().resolve(host, port, socket.AF_UNSPEC)
    except ValueError as error:
        raise RefusedError(f"{error}, and the store, or a redirect of it, leads there") from error
    last_error: Exception = OSError(f"{host} has no address")
    for address in (one["host"] for one in found):
        try:
            async with asyncio.timeout(TIMEOUT):
                return await asyncio.open_connection(
                    address, port, limit=_BLOCK, ssl=context, server_hostname=host if context else None
                )
        except (OSError, TimeoutError) as error:
            last_error = error
    raise last_error


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy a stream until it ends."""
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()


async def _copy_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer)
    writer.close()
