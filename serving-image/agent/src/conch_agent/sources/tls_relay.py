"""A proxy on loopback that speaks TLS through OpenSSL, for servers whose certificate the S3 client refuses.

The client's TLS library (rustls) refuses a certificate that is an authority and a server's at once, which is what
`openssl req -x509` makes, and one without alternative names. OpenSSL, and so curl, accepts both. The client gets an
http:// endpoint and this proxy; requests leave the pod over TLS only, to one host, verified by OpenSSL.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from conch_agent.sources.connection import explain
from conch_agent.sources.s3_settings import Endpoint

_CHUNK: Final = 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


def plain_url(endpoint: Endpoint) -> str:
    """Return the endpoint's URL as http://, with its port.

    >>> plain_url(Endpoint("https://store/s3", "store", 443))
    'http://store:443/s3'
    """
    parts = urlsplit(endpoint.url)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"http://{host}:{endpoint.port}{parts.path}"


@asynccontextmanager
async def open_relay(endpoint: Endpoint, context: ssl.SSLContext) -> AsyncGenerator[str, None]:
    """Run the proxy and yield its URL."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=0),
        timeout=_TIMEOUT,
        auto_decompress=False,
        skip_auto_headers=_NOT_ADDED,
    ) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            return await _forward(request, endpoint, session)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def _forward(request: web.Request, endpoint: Endpoint, session: aiohttp.ClientSession) -> web.StreamResponse:
    target = urlsplit(request.raw_path)
    host = target.hostname or ""
    if target.port != endpoint.port or not (host == endpoint.host or host.endswith(f".{endpoint.host}")):
        return web.Response(status=403, text=f"this proxy forwards to {endpoint.host}:{endpoint.port} only")
    query = f"?{target.query}" if target.query else ""
    url = URL(f"https://{target.netloc}{target.path}{query}", encoded=True)  # the signature covers each character
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    try:
        async with session.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK):
                await response.write(chunk)
            await response.write_eof()
            return response
    except aiohttp.ClientConnectorError as error:
        return web.Response(status=502, text=explain(error, host, endpoint.port).what)
