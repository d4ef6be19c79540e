"""S3 stores that redirect: where the client follows, no credentials go along, and no metadata server is reached."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.reasons import Failure
from conch_agent.sources.s3 import S3Source
from tests.serving.certificates import issued

_LISTING = """<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>m/model.onnx</Key>
<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"a"</ETag><Size>5</Size></Contents></ListBucketResult>"""
_SECRETS = {"authorization", "x-amz-security-token"}


class Server:
    """A store that lists one object, or redirects, and remembers what it was sent."""

    def __init__(self) -> None:
        self.elsewhere = ""  # where it redirects to; empty: it answers
        self.headers: list[set[str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower() for name in request.headers})
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(f"{self.elsewhere}{request.rel_url}")
        return web.Response(text=_LISTING, content_type="application/xml")


@asynccontextmanager
async def serve(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, int]]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield server, runner.addresses[0][1]
    await runner.cleanup()


def secret(endpoint: str, *, authorities: str = "") -> dict[str, str]:
    found = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": endpoint}
    found["AWS_SESSION_TOKEN"] = "t"
    return found | ({"ca.crt": authorities} if authorities else {"AWS_ALLOW_HTTP": "true"})


async def test_another_host_gets_no_credentials() -> None:
    async with serve() as (store, port), serve() as (other, other_port):
        store.elsewhere = f"http://localhost:{other_port}"
        listing = await S3Source("s3://models/m", secret(f"http://127.0.0.1:{port}")).list_files()
        assert [str(item.path) for item in listing.items] == ["model.onnx"]
        assert store.headers[0] >= _SECRETS
        assert other.headers
        assert not set.union(*other.headers) & _SECRETS


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]"])
async def test_a_redirect_to_a_metadata_server_is_not_followed(host: str) -> None:
    async with serve() as (store, port):
        store.elsewhere = f"http://{host}"
        with pytest.raises(Failure, match="which Conch never contacts"):
            await S3Source("s3://models/m", secret(f"http://127.0.0.1:{port}")).list_files()


async def test_through_tls_another_host_gets_no_credentials(tmp_path: Path) -> None:
    parts = [issued(tmp_path / host, host=host) for host in ("127.0.0.1", "localhost")]
    contexts = []
    for certificate, key, _ in parts:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        contexts.append(context)
    authorities = "".join(authority.read_text() for _, _, authority in parts)
    async with serve(contexts[0]) as (store, port), serve(contexts[1]) as (other, other_port):
        store.elsewhere = f"https://localhost:{other_port}"
        endpoint = f"https://127.0.0.1:{port}"
        await S3Source("s3://models/m", secret(endpoint, authorities=authorities)).list_files()
        assert store.headers[0] >= _SECRETS
        assert not set.union(*other.headers) & _SECRETS
