"""What goes wrong between the agent and a registry: its own words, and what to do. None gets the login of another."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources import oci_registry
from conch_agent.sources.oci import OciSource
from conch_contract import ModelSource
from tests.serving.certificates import issued
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.registry import (
    Front,
    Registry,
    TokenService,
    build_manifest,
    build_secret,
    serve_front,
    serve_tokens,
)
from tests.support.web import serve_apps

NAME = "team/model"
LARGE = b"large" * 1000
PLAIN = {"OCI_PLAIN_HTTP": "true"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as served:
        served.push(f"{NAME}:v1", {"onnx/model.onnx": LARGE, "onnx/note.txt": b"text"})
        yield served


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with serve_front(registry) as served:
        yield served


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    with serve_tokens() as served:
        yield served


async def _fail(uri: str, secret: dict[str, str] | None = None, folder: Path | None = None) -> Failure:
    """Return the failure of the listing, or with a folder that of the fetch."""

    async def run() -> None:
        source = OciSource(uri, PLAIN if secret is None else secret)
        listing = await source.list_files()
        if folder:
            await Fetch(source, folder).run(listing)

    with pytest.raises(Failure) as raised:
        await run()
    return raised.value


@pytest.mark.parametrize(
    ("rest", "parts"),
    [
        ("gone:v1", ("has no gone:v1", "or push the model")),
        (f"{NAME}:v2", (f"has no {NAME}:v2", "MANIFEST_UNKNOWN")),
        (f"{NAME}@sha256:{'0' * 64}", (f"has no {NAME}@sha256:000",)),
        (f"{NAME}:v1/gone", ("no file or folder 'gone'", "it has 'onnx/model.onnx', 'onnx/note.txt'")),
        (f"{NAME}:v1/onnx/model.onnx/", ("no file or folder 'onnx/model.onnx'",)),
    ],
)
async def test_what_is_missing_is_named(registry: Registry, rest: str, parts: tuple[str, ...]) -> None:
    uri = f"oci://{registry.host}/{rest}"
    failure = await _fail(uri)
    assert failure.reason == Reason.NOT_FOUND
    assert failure.message.startswith(uri)
    for part in parts:
        assert part in failure.message


def _error(code: str, message: str) -> str:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]})


@pytest.mark.parametrize(
    ("answer", "reason", "parts"),
    [
        ((401, _error("UNAUTHORIZED", "no"), {}), Reason.ACCESS_DENIED, ("UNAUTHORIZED: no", "Write a login of 127")),
        ((403, _error("DENIED", "not you"), {}), Reason.ACCESS_DENIED, ("DENIED: not you", ".dockerconfigjson")),
        ((404, "", {}), Reason.NOT_FOUND, (f"has no {NAME}:v1", "HTTP 404 Not Found")),
        ((404, _error("NAME_UNKNOWN", "no"), {}), Reason.NOT_FOUND, ("has no repository team/model",)),
        ((404, _error("BLOB_UNKNOWN", "no"), {}), Reason.NOT_FOUND, (f"has no content of a file of {NAME}:v1",)),
        ((404, _error("A" * 5000, "B" * 5000), {}), Reason.NOT_FOUND, ("AAA...", "BBB")),
        (
            (429, _error("TOOMANYREQUESTS", "slow"), {"Retry-After": "7"}),
            Reason.FETCH_FAILED,
            ("retries in 7 s", "login"),
        ),
        ((429, "", {"Retry-After": "9" * 30}), Reason.FETCH_FAILED, ("retries later",)),
        ((429, "", {"Retry-After": "99999"}), Reason.FETCH_FAILED, ("retries in 600 s",)),
        ((500, _error("UNKNOWN", "boom"), {}), Reason.FETCH_FAILED, ("HTTP 500 Internal Server Error: UNKNOWN: boom",)),
        ((503, "", {}), Reason.FETCH_FAILED, ("HTTP 503 Service Unavailable", "retries")),
        ((418, '{"errors": []}', {}), Reason.FETCH_FAILED, ("HTTP 418", "is there a registry")),
        ((418, '{"errors": [7]}', {}), Reason.FETCH_FAILED, ("HTTP 418",)),
        ((418, '{"errors": [{"code": {"a": []}}]}', {}), Reason.FETCH_FAILED, ("HTTP 418",)),
        ((418, "[" * 60_000, {}), Reason.FETCH_FAILED, ("HTTP 418",)),
        ((204, "", {}), Reason.FETCH_FAILED, ("HTTP 204",)),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_an_error_of_the_registry_has_a_remedy(
    front: Front, answer: tuple[int, str, dict[str, str]], reason: Reason, parts: tuple[str, ...]
) -> None:
    status, body, headers = answer
    front.fault = lambda _: web.Response(status=status, text=body or None, headers=headers)
    failure = await _fail(f"oci://{front.host}/{NAME}:v1")
    assert failure.reason == reason, failure.message
    for part in parts:
        assert part in failure.message
    assert len(failure.message) < 1500


def _answer_manifest(body: bytes | str, media_type: str = MANIFEST, **headers: str) -> Callable[[web.Request], Any]:
    content = body.encode() if isinstance(body, str) else body
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(request: web.Request) -> web.Response | None:
        if "/manifests/" not in request.path:
            return None
        return web.Response(body=content, headers={"Content-Type": media_type, **names})

    return answer


@pytest.mark.parametrize(
    ("body", "media_type", "reason", "part"),
    [
        ("<html><title>Login</title></html>", "text/html", Reason.UNSUPPORTED, "answers the media type 'text/html'"),
        ("<html><title>Login</title></html>", MANIFEST, Reason.FETCH_FAILED, "a page: Login"),
        ("", MANIFEST, Reason.FETCH_FAILED, "no manifest of the OCI image specification"),
        ("[" * 100_000, MANIFEST, Reason.FETCH_FAILED, "Invalid JSON"),
        (" " * ((4 << 20) + 1), MANIFEST, Reason.TOO_LARGE, "more than 4194304 bytes"),
        (json.dumps(build_manifest([])), MANIFEST, Reason.EMPTY, "holds no files"),
        (json.dumps(build_manifest([])), INDEX, Reason.FETCH_FAILED, "manifests: Field required"),
        (json.dumps(build_manifest([], manifests=[])), MANIFEST, Reason.FETCH_FAILED, "manifests"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
async def test_an_answer_that_is_no_manifest(
    front: Front, body: str, media_type: str, reason: Reason, part: str
) -> None:
    front.fault = _answer_manifest(body, media_type)
    failure = await _fail(f"oci://{front.host}/{NAME}:v1")
    assert failure.reason == reason, failure.message
    assert part in failure.message
    assert len(failure.message) < 1000


async def test_a_manifest_with_another_digest_is_refused(front: Front) -> None:
    manifest = json.dumps(build_manifest([]))
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    other = f"sha256:{'0' * 64}"
    front.fault = _answer_manifest(manifest)
    failure = await _fail(f"oci://{front.host}/{NAME}@{other}")
    assert (failure.reason, f"with the digest {digest} in place of {other}" in failure.message) == (
        Reason.DIGEST_MISMATCH,
        True,
    )
    front.fault = _answer_manifest(manifest, Docker_Content_Digest=other)
    failure = await _fail(f"oci://{front.host}/{NAME}:v1")
    assert failure.reason == Reason.DIGEST_MISMATCH, "the registry declares another digest than its answer has"


async def test_an_index_leads_to_no_other_index(front: Front) -> None:
    empty = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    inner = json.dumps(empty).encode()
    digest = f"sha256:{hashlib.sha256(inner).hexdigest()}"
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(inner)}
    outer = _answer_manifest(json.dumps({**empty, "manifests": [entry]}), INDEX)
    nested = _answer_manifest(inner, INDEX)
    front.fault = lambda request: nested(request) if digest in request.path else outer(request)
    failure = await _fail(f"oci://{front.host}/{NAME}:v1")
    assert failure.reason == Reason.UNSUPPORTED
    assert "is an index of indexes" in failure.message
    assert len(front.requests) == 2


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x"])
async def test_a_blob_of_another_size_is_refused(front: Front, tmp_path: Path, change: Any) -> None:
    front.fault = lambda request: web.Response(body=change(LARGE)) if "/blobs/" in request.path else None
    failure = await _fail(f"oci://{front.host}/{NAME}:v1/onnx/model.onnx", folder=tmp_path)
    assert failure.reason == Reason.FETCH_FAILED
    assert "5000 bytes" in failure.message


def _challenge(realm: str) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})


@pytest.mark.parametrize(
    ("realm", "reason", "part"),
    [
        ("", Reason.FETCH_FAILED, "names '' as its token service"),
        ("/token", Reason.FETCH_FAILED, "names '/token' as its token service"),
        ("ftp://auth.example/token", Reason.FETCH_FAILED, "which is no https:// URL"),
        ("file:///etc/passwd", Reason.FETCH_FAILED, "which is no https:// URL"),
        ("https://me:secret@auth.example/token", Reason.FETCH_FAILED, "without a user"),
        ("https://[::1/token", Reason.FETCH_FAILED, "which is no https:// URL"),
        ("https://a:99999/token", Reason.FETCH_FAILED, "which is no https:// URL"),
        ("http://169.254.169.254/token", Reason.FETCH_FAILED, "which Conch never contacts"),
        ("https://[fd00:ec2::254]/token", Reason.FETCH_FAILED, "which Conch never contacts"),
        ("http://127.0.0.1:1/token", Reason.UNREACHABLE, "connection refused"),
    ],
)
async def test_a_token_service_that_is_none(front: Front, realm: str, reason: Reason, part: str) -> None:
    front.fault = _challenge(realm)
    failure = await _fail(f"oci://{front.host}/{NAME}:v1", PLAIN | build_secret(front.host))
    assert failure.reason == reason, failure.message
    assert part in failure.message


@pytest.mark.parametrize(
    ("answer", "reason", "part"),
    [
        ((200, "<html><title>Login</title></html>"), Reason.FETCH_FAILED, "answered no token (a page: Login)"),
        ((200, "[" * 100_000), Reason.FETCH_FAILED, "answered no token"),
        ((200, "{}"), Reason.FETCH_FAILED, "answered no token"),
        ((200, '{"token": ""}'), Reason.FETCH_FAILED, "answered no token"),
        ((200, '{"token": ["a"]}'), Reason.FETCH_FAILED, "answered no token (token: "),
        ((200, '{"token": "a\\r\\nX: y"}'), Reason.FETCH_FAILED, "answered no token (token: "),
        ((200, json.dumps({"token": "a" * 65_537})), Reason.FETCH_FAILED, "answered no token (token: "),
        ((200, json.dumps({"token": "a" * 200_000})), Reason.FETCH_FAILED, "answered more than 131072 bytes"),
        ((404, ""), Reason.FETCH_FAILED, "answered HTTP 404 Not Found"),
        ((500, ""), Reason.FETCH_FAILED, "answered HTTP 500"),
        ((403, ""), Reason.ACCESS_DENIED, "the token service 127.0.0.1 refused access"),
        ((302, ""), Reason.FETCH_FAILED, "which Conch never contacts"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_token_service_that_answers_no_token(
    front: Front, tokens: TokenService, answer: tuple[int, str], reason: Reason, part: str
) -> None:
    status, text = answer
    location = {"Location": "http://169.254.169.254/latest"}
    tokens.fault = lambda _: web.Response(status=status, text=text, headers=location if status == 302 else {})
    front.fault = _challenge(f"{tokens.url}/token")
    failure = await _fail(f"oci://{front.host}/{NAME}:v1")
    assert failure.reason == reason, failure.message
    assert part in failure.message
    assert len(failure.message) < 1000


async def test_a_registry_that_never_accepts_gets_two_requests(front: Front, tokens: TokenService) -> None:
    front.fault = _challenge(f"{tokens.url}/token")
    failure = await _fail(f"oci://{front.host}/{NAME}:v1", PLAIN | build_secret(front.host))
    assert failure.reason == Reason.ACCESS_DENIED
    assert (len(front.requests), len(tokens.requests)) == (2, 1)


async def test_the_login_is_for_the_registry_and_its_token_service_alone(
    front: Front, tokens: TokenService, tmp_path: Path
) -> None:
    """A token service that redirects, and a server of blobs that wants a login, get none."""
    other: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        other.append((request.path, request.headers.get("Authorization", "")))
        if request.path == "/token":
            return web.json_response({"token": "abc"})
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    with serve_apps(app) as [url]:
        tokens.fault = lambda request: web.Response(status=302, headers={"Location": f"{url}{request.rel_url}"})

        def require(request: web.Request) -> web.Response | None:
            if not request.headers.get("Authorization"):
                return _challenge(f"{tokens.url}/token")(request)
            if "/blobs/" in request.path:
                return web.Response(status=307, headers={"Location": f"{url}/blob?Signature=SECRET"})
            return None

        front.fault = require
        secret = PLAIN | build_secret(front.host)
        failure = await _fail(f"oci://{front.host}/{NAME}:v1/onnx/note.txt", secret, tmp_path)
    assert failure.reason == Reason.FETCH_FAILED
    assert "the server 127.0.0.1, to which the registry redirects for its files, answered HTTP 401" in failure.message
    assert "SECRET" not in failure.message
    assert other == [("/token", ""), ("/blob", "")]
    assert {authorization for _, authorization, _ in front.requests} == {"", "Bearer abc"}


async def test_a_redirect_and_a_token_service_stay_in_tls(registry: Registry, tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    plain = f"http://{registry.host}"
    front = Front(registry)
    with serve_apps(front.build_app(), context=context) as [front.url]:
        uri, secret = f"oci://{front.host}/{NAME}:v1", {"ca.crt": authority.read_text()}
        front.fault = lambda request: web.Response(status=307, headers={"Location": f"{plain}{request.raw_path}"})
        assert "redirects from https to http" in (await _fail(uri, secret)).message
        front.fault = _challenge(f"{plain}/token")
        assert "is no https:// URL" in (await _fail(uri, secret | build_secret(front.host))).message


async def test_a_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_registry, "_SECONDS", 0.2)
    server = await asyncio.start_server(lambda *_: asyncio.sleep(5), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    uri = f"oci://127.0.0.1:{port}/{NAME}:v1"
    failure = await _fail(uri)
    assert failure.reason == Reason.UNREACHABLE
    assert "did not complete its answer" in failure.message
    server.close()
    failure = await _fail(uri)
    assert failure.reason == Reason.UNREACHABLE
    assert "connection refused" in failure.message


@pytest.mark.parametrize("host", ["169.254.169.254:80", "100.100.100.200"])
async def test_no_artifact_is_fetched_from_a_metadata_server(front: Front, tmp_path: Path, host: str) -> None:
    failure = await _fail(f"oci://{host}/{NAME}:v1")
    assert failure.reason == Reason.UNREACHABLE
    assert "which Conch never contacts" in failure.message
    target = {"Location": f"http://{host}/latest"}
    front.fault = lambda request: web.Response(status=307, headers=target) if "/blobs/" in request.path else None
    failure = await _fail(f"oci://{front.host}/{NAME}:v1", folder=tmp_path)
    assert "which Conch never contacts" in failure.message


def test_the_agent_retries_when_the_registry_permits_it(front: Front, pod: Pod) -> None:
    times: list[float] = []

    def limit(_: web.Request) -> web.Response | None:
        times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "3"}) if len(times) == 1 else None

    front.fault = limit
    pod.write_secret(PLAIN)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"oci://{front.host}/{NAME}:v1/onnx"))
    pod.start_agent()
    assert "retries in 3 s" in pod.until_reason("FetchFailed").message
    until(lambda: len(times) > 1, "the agent retries", pod.agent)
    assert 3 <= times[1] - times[0] < 8
