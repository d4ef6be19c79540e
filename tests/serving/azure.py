"""A real emulator of Azure Blob Storage (Azurite) on loopback, a user who uploads to it, and servers beside it.

Azurite keeps no versions of blobs: `Versions` stands before it, and has them from its snapshots. `Authority` issues the
tokens of Microsoft Entra ID.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web

from tests.serving import tools
from tests.serving.processes import Process, until
from tests.support.azure import ACCOUNT, CLIENT, CLIENT_SECRET, KEY, TENANT, VERSION, make_account_sas, make_token
from tests.support.ports import free_port, listens

POD_TOKEN = "token-of-the-service-account"


class Azurite:
    """The emulator, with one account. With a certificate it speaks HTTPS alone, and takes tokens too."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path, Path] | None = None) -> None:
        self.port = free_port()
        options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"]
        options += ["--blobHost=127.0.0.1", f"--blobPort={self.port}"]
        self._context: ssl.SSLContext | None = None
        if certificate:
            chain, key, authority = certificate
            options += [f"--cert={chain}", f"--key={key}", "--oauth=basic"]
            self._context = ssl.create_default_context(cafile=authority)
        environment = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
        self.process = Process([*tools.azurite(), *options], folder / "azurite.log", environment)
        until(lambda: listens(self.port), "the store listens", self.process)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def public(self) -> dict[str, str]:
        """The storage Secret of a public container."""
        return {"AZURE_STORAGE_ENDPOINT": self.endpoint, "AZURE_ALLOW_HTTP": "true"}

    @property
    def secret(self) -> dict[str, str]:
        """The storage Secret with a key of the account."""
        return self.public | {"AZURE_STORAGE_ACCOUNT_KEY": KEY}

    def make_container(self, name: str, *, is_public: bool = False) -> None:
        self._request("PUT", name, "restype=container", {"x-ms-blob-public-access": "container"} if is_public else {})

    def put(self, container: str, files: Mapping[str, bytes | Path], encoding: str = "") -> None:
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        headers |= {"x-ms-blob-content-encoding": encoding} if encoding else {}
        for name, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            self._request("PUT", f"{container}/{quote(name)}", "", headers, data)

    def remove(self, container: str, name: str) -> None:
        self._request("DELETE", f"{container}/{quote(name)}", "", {"x-ms-delete-snapshots": "include"})

    def take_snapshot(self, container: str, name: str) -> str:
        """Return the time of a new snapshot of a blob."""
        return self._request("PUT", f"{container}/{quote(name)}", "comp=snapshot", {})["x-ms-snapshot"]

    def _request(
        self, method: str, path: str, query: str, headers: Mapping[str, str], content: bytes = b""
    ) -> Mapping[str, str]:
        url = f"{self.endpoint}/{path}?{make_account_sas('rwdlac')}&{query}"
        request = urllib.request.Request(url, content, {"x-ms-version": VERSION, **headers}, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10, context=self._context) as answer:  # noqa: S310
            return dict(answer.headers)


class Versions:
    """A server before the emulator with blob versioning. A version is a snapshot, which `put` takes."""

    def __init__(self, azurite: Azurite) -> None:
        self._azurite = azurite
        self._current: dict[str, str] = {}
        self.url = ""

    def put(self, container: str, files: Mapping[str, bytes]) -> None:
        """Upload, as a new version of each blob."""
        self._azurite.put(container, files)
        for name in files:
            self._current[f"/{ACCOUNT}/{container}/{name}"] = self._azurite.take_snapshot(container, name)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[Versions, None]:
        async with serve(self._pass, None) as url:
            self.url = f"{url}/{ACCOUNT}"
            yield self

    async def _pass(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        if version := query.pop("versionid", ""):
            query["snapshot"] = version
        else:
            version = self._current.get(request.path, "")
        sent = {name: value for name, value in request.headers.items() if name.lower() in {"range", "if-match"}}
        url = f"{self._azurite.endpoint}{request.path.removeprefix(f'/{ACCOUNT}')}?{make_account_sas('rl')}"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, params=query, headers={"x-ms-version": VERSION, **sent}) as answer,
        ):
            body = await answer.read()
            headers = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
            headers |= {"x-ms-version-id": version} if version else {}
            return web.Response(status=answer.status, body=body, headers=headers)


class Authority:
    """A server of tokens, as Microsoft Entra ID: https://learn.microsoft.com/entra/identity-platform/."""

    def __init__(self) -> None:
        self.requests = 0
        self.answers: list[web.Response] = []  # in place of those to the next requests
        self.life = 3600  # seconds
        self.url = ""

    @asynccontextmanager
    async def run(self, context: ssl.SSLContext) -> AsyncGenerator[Authority, None]:
        async with serve(self._answer, context) as url:
            self.url = url
            yield self

    @property
    def secret(self) -> dict[str, str]:
        """Values of the storage Secret."""
        return {
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": CLIENT_SECRET,
        }

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.answers:
            return self.answers.pop()
        form = await request.post()
        assert (request.method, request.path) == ("POST", f"/{TENANT}/oauth2/v2.0/token")
        assert (form["grant_type"], form["client_id"]) == ("client_credentials", CLIENT)
        assert form["scope"] == "https://storage.azure.com/.default"
        if "client_assertion" in form:
            assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            if form["client_assertion"] != POD_TOKEN:
                words = f"AADSTS700213: No matching federated identity record found for the app '{CLIENT}'."
                return web.json_response({"error": "invalid_client", "error_description": words}, status=401)
        elif form["client_secret"] != CLIENT_SECRET:
            words = f"AADSTS7000215: Invalid client secret provided. It is a secret of the app '{CLIENT}'."
            return web.json_response({"error": "invalid_client", "error_description": words}, status=401)
        body = json.dumps({"token_type": "Bearer", "expires_in": self.life, "access_token": make_token(self.life)})
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        for start in range(0, len(body), 100):  # a long token arrives in parts
            await answer.write(body[start : start + 100].encode())
            await asyncio.sleep(0.01)
        return answer


@asynccontextmanager
async def serve(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], context: ssl.SSLContext | None
) -> AsyncGenerator[str, None]:
    """Yield the URL of a server on loopback with one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
