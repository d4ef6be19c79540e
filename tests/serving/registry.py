"""A real registry (CNCF distribution) on loopback, a user who pushes to it with ORAS, and its token service.

`Front` stands before the registry, and answers some requests in its place, as a broken or hostile registry does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.serving import tools
from tests.serving.processes import Process, until
from tests.support.ports import free_port, listens
from tests.support.web import serve_apps

USER: Final = "reader"
PASSWORD: Final = "pass:word"
_BCRYPT: Final = "$2b$04$Mg4imXQ31oENC7EtXyD3kOOV35fCKGLq36FJ6t/Rv/LHo6lIvooWa"  # of PASSWORD
_SERVICE: Final = "registry of the tests"
_EMPTY: Final = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
Fault = Callable[[web.Request], web.StreamResponse | None]


class Registry:
    """The registry. `auth` is the part of its configuration about authentication; `tls` has certificate and key."""

    def __init__(
        self, folder: Path, auth: Mapping[str, Any] | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._options = ["--insecure"] if tls else ["--plain-http"]
        folder.mkdir(parents=True, exist_ok=True)
        http: dict[str, Any] = {"addr": self.host}
        if tls:
            http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        storage = {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}}
        config = {"version": 0.1, "log": {"level": "info"}, "http": http, "storage": storage, "auth": auth or {}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"}
        command = [str(tools.registry()), "serve", str(folder / "config.yaml")]
        self.process = Process(command, folder / "registry.log", environment)
        until(lambda: listens(self.port), "the registry listens", self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    @classmethod
    def with_password(cls, folder: Path, tls: tuple[Path, Path] | None = None) -> Registry:
        """Return a registry that requires USER and PASSWORD of each request."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        return cls(folder, {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}, tls)

    def push(self, name: str, files: Mapping[str, bytes], *options: str) -> str:
        """Push files as an artifact with ORAS; return its digest. `name` has the tag."""
        folder = self._folder / "push"
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        pushed = self.run_oras("push", f"{self.host}/{name}", *files, "--format=json", *options, folder=folder)
        return str(json.loads(pushed)["digest"])

    def push_manifest(self, name: str, manifest: Mapping[str, Any], *options: str) -> str:
        """Push a manifest or index with ORAS; return its digest."""
        body = json.dumps(manifest).encode()
        media_type = manifest["mediaType"]
        (self._folder / "manifest.json").write_bytes(body)
        self.run_oras(
            *("manifest", "push", f"--media-type={media_type}", f"{self.host}/{name}", "manifest.json", *options),
            folder=self._folder,
        )
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def delete(self, name: str, digest: str) -> None:
        """Delete a manifest."""
        self.run_oras("manifest", "delete", "--force", f"{self.host}/{name}@{digest}", folder=self._folder)

    def run_oras(self, *command: str, folder: Path) -> str:
        """Run ORAS in a folder; return what it prints."""
        program = [str(tools.oras()), *command, *self._options]
        environment = {"HOME": str(self._folder), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def build_secret(host: str, user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """Return the storage Secret as `kubectl create secret docker-registry` makes it."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    entry = {"username": user, "password": password, "email": "", "auth": auth}
    return {".dockerconfigjson": json.dumps({"auths": {host: entry}})}


class TokenService:
    """The token service of a registry. It knows one user; `requests` are queries with the header of the login."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[dict[str, str], str]] = []
        self.fault: Fault = lambda _: None
        self._key = rsa.generate_private_key(65537, 2048)

    def write_auth(self, folder: Path) -> dict[str, Any]:
        """Return the part of a registry's configuration that trusts this service."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "tests", "alg": "RS256", "use": "sig"}
        key |= {"n": _encode(numbers.n.to_bytes(256, "big")), "e": _encode(numbers.e.to_bytes(3, "big"))}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
        return {
            "token": {
                "realm": f"{self.url}/token",
                "service": _SERVICE,
                "issuer": "tests",
                "jwks": str(folder / "jwks.json"),
                "signingalgorithms": ["RS256"],
            }
        }

    def build_app(self) -> web.Application:
        """Return its application."""
        app = web.Application()
        app.router.add_get("/token", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        login = request.headers.get("Authorization", "")
        self.requests.append((dict(request.query), login))
        if (answer := self.fault(request)) is not None:
            return answer
        expected = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if login not in {"", expected}:
            error = {"code": "UNAUTHORIZED", "message": "incorrect username or password"}
            return web.json_response({"errors": [error]}, status=401)
        kind, name, actions = request.query["scope"].split(":")
        granted = {"type": kind, "name": name, "actions": actions.split(",") if login else []}
        now = int(time.time())
        claims = {"iss": "tests", "sub": USER, "aud": request.query["service"], "exp": now + 60, "nbf": now, "iat": now}
        return web.json_response({"token": self._sign({**claims, "jti": "1", "access": [granted]}), "expires_in": 60})

    def _sign(self, claims: Mapping[str, Any]) -> str:
        header = {"typ": "JWT", "alg": "RS256", "kid": "tests"}
        text = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_encode(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@dataclass
class Front:
    """A server before the registry. `fault` returns what it answers in place of the registry; None: it passes on."""

    registry: Registry
    url: str = ""
    fault: Fault = lambda _: None
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # path with query, Authorization, Range

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def build_app(self) -> web.Application:
        """Return its application."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        self.requests.append((request.raw_path, headers.get("Authorization", ""), headers.get("Range", "")))
        if (answer := self.fault(request)) is not None:
            return answer
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(f"http://{self.registry.host}{request.raw_path}", headers=headers) as answered,
        ):
            body = await answered.read()
            passed = {name: value for name, value in answered.headers.items() if name != "Transfer-Encoding"}
            return web.Response(status=answered.status, body=body, headers=passed)


@contextmanager
def serve_front(registry: Registry) -> Iterator[Front]:
    """Serve a server before a registry."""
    front = Front(registry)
    with serve_apps(front.build_app()) as [front.url]:
        yield front


@contextmanager
def serve_tokens() -> Iterator[TokenService]:
    """Serve a token service."""
    service = TokenService()
    with serve_apps(service.build_app()) as [service.url]:
        yield service


def build_manifest(layers: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return a manifest with these layers."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _EMPTY, "size": 2}
    return {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers, **fields}
