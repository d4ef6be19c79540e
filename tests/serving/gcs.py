"""A real emulator of Google Cloud Storage (fake-gcs-server) on loopback, and a user who uploads to it.

The emulator takes every request, with or without credentials. `Gate` stands before it as Google's own check does: it
verifies the signature of each request.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web

from tests.serving import tools
from tests.serving.processes import Process, until
from tests.support.google import Account
from tests.support.ports import free_port, listens

DENIED = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>"
    "<Details>{details}</Details></Error>"
)


class Gcs:
    """The emulator. It keeps its objects in memory: only so does it keep their generations."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [str(tools.fake_gcs_server()), "-backend=memory", "-scheme=http", "-host=127.0.0.1"]
        command += [f"-port={self.port}", "-public-host=127.0.0.1"]
        self.process = Process(command, folder / "fake-gcs-server.log", {"HOME": str(folder), "PATH": "/usr/bin:/bin"})
        until(lambda: listens(self.port), "the store listens", self.process)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secret(self) -> dict[str, str]:
        """The storage Secret of a public bucket."""
        return {"GOOGLE_BASE_URL": self.endpoint, "GOOGLE_ALLOW_HTTP": "true"}

    def make_bucket(self, name: str, *, versioning: bool = False) -> None:
        body = json.dumps({"name": name, "versioning": {"enabled": versioning}})
        self._request("POST", "storage/v1/b?project=conch", body.encode(), "application/json")

    def put(self, bucket: str, files: Mapping[str, bytes | Path], encoding: str = "") -> None:
        for key, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            query = f"uploadType=media&name={quote(key, safe='')}&contentEncoding={encoding}"
            self._request("POST", f"upload/storage/v1/b/{bucket}/o?{query}", data)

    def remove(self, bucket: str, key: str, generation: str = "") -> None:
        """Delete an object, or one generation of it as a lifecycle rule does."""
        query = f"?generation={generation}" if generation else ""
        self._request("DELETE", f"storage/v1/b/{bucket}/o/{quote(key, safe='')}{query}")

    def _request(self, method: str, path: str, content: bytes = b"", kind: str = "application/octet-stream") -> None:
        headers = {"Content-Type": kind}
        request = urllib.request.Request(f"{self.endpoint}/{path}", content, headers, method=method)  # noqa: S310
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


class Gate:
    """A server before the emulator that lets the requests of an account pass, or those without one.

    A request whose path or query holds `hidden` is answered with 403.
    """

    def __init__(self, gcs: Gcs, account: Account | None) -> None:
        self._gcs = gcs
        self._account = account
        self.hidden = "nothing"
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[Gate, None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield self
        await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.Response:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if bool(token) != bool(self._account):
            return _deny(401, "AuthenticationRequired", "Authentication required.", "")
        if self._account:
            claims = self._account.read_token(token)
            assert (kind, claims["iss"]) == ("Bearer", self._account.fields["client_email"])
            assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        if self.hidden in request.path_qs:
            details = "reader@conch.iam.gserviceaccount.com does not have storage.objects.get access to the object."
            return _deny(403, "AccessDenied", "Access denied.", details)
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        url = f"{self._gcs.endpoint}{request.raw_path}"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, headers=headers) as answer,
        ):
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
            return web.Response(status=answer.status, body=body, headers=kept)


def _deny(status: int, code: str, message: str, details: str) -> web.Response:
    text = DENIED.format(code=code, message=message, details=details)
    return web.Response(status=status, text=text, content_type="application/xml")
