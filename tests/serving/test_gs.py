"""Models in Google Cloud Storage: the stories of S3, against fake-gcs-server."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.object_versions import find_versions, list_files
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Source
from conch_agent.sources.gs import GsSource
from conch_contract import ModelSource, ModelState
from tests.serving import azure
from tests.serving.certificates import issued
from tests.serving.gcs import Gate, Gcs
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.test_formats import DOUBLE, X
from tests.serving.test_store_redirects import serve
from tests.support.google import Account
from tests.support.relay import Relay

SIZE = 48 * 1024 * 1024
MARKERS = ("m/", "m/1/", "m/1/assets/", "m/empty/", "m/1/.gitkeep", "m/.DS_Store")


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    gcs = Gcs(tmp_path_factory.mktemp("gcs"))
    gcs.make_bucket("models")
    gcs.make_bucket("versioned", versioning=True)
    yield gcs
    gcs.process.kill()


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


def _double(name: str, factor: int) -> dict[str, bytes]:
    return {f"{name}/model.py": DOUBLE.encode(), f"{name}/factor.py": f"FACTOR = {factor}".encode()}


def _model(name: str, bucket: str) -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri=f"gs://{bucket}/{name}")


async def _failure(source: Source) -> Failure:
    with pytest.raises(Failure) as raised:
        await source.list_files()
    return raised.value


def test_a_model_is_served_and_later_pods_serve_its_generations(gcs: Gcs, pod: Pod, tmp_path: Path) -> None:
    gcs.put("versioned", _double("live", 2))
    source = _model("live", "versioned")
    pod.write_secret(gcs.secret)
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    first = pod.until_reported()
    assert sorted(first.object_versions) == ["factor.py", "model.py"]

    gcs.put("versioned", _double("live", 3) | {"live/added.txt": b"later"})
    gcs.remove("versioned", "live/model.py")
    later = type(pod)(tmp_path / "later")
    try:
        later.write_secret(gcs.secret)
        later.write_manifest(
            source.model_copy(update={"digest": first.digest, "object_versions": first.object_versions})
        )
        later.start()
        later.until_ready()
        assert later.until_reported().digest == first.digest
        assert later.infer("m", X)["y"] == [3.0, 4.0]
    finally:
        later.stop()


def test_an_agent_killed_in_a_download_goes_on_where_it_was(gcs: Gcs, pod: Pod) -> None:
    weights = os.urandom(SIZE)
    files = {"model.py": DOUBLE.encode(), "factor.py": b"FACTOR = 2", "weights.bin": weights}
    gcs.put("models", {f"killed/{name}": content for name, content in files.items()})
    line = Relay(gcs.port)
    line.rate = 6 * 1024 * 1024  # half of it takes four seconds, so that the agent is killed before the end
    pod.write_secret({**gcs.secret, "GOOGLE_BASE_URL": f"http://127.0.0.1:{line.port}"})
    pod.write_manifest(_model("killed", "models"))
    pod.start()
    until(lambda: pod.model().bytes_fetched > SIZE // 2, "half is fetched", pod.agent)
    assert pod.model().state == ModelState.FETCHING
    assert pod.agent
    pod.agent.kill()
    line.passed, line.rate = 0, 0
    pod.start_agent()
    pod.until_ready()
    line.close()
    assert line.passed < SIZE * 3 // 4, "what was on disk is not fetched again"
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    assert pod.model().digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


async def test_files_of_a_prefix_without_folder_markers(gcs: Gcs, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # over two ranges
    gcs.put("models", dict.fromkeys(MARKERS, b""))
    gcs.put("models", {"m/1/a model+1.onnx": content, "m/1/assets/table": b"table", "m/1/__init__.py": b""})
    source = GsSource("gs://models/m", gcs.secret)
    listing = await source.list_files()
    assert [str(item.path) for item in listing.items] == ["1/__init__.py", "1/a model+1.onnx", "1/assets/table"]
    fetched = await Fetch(source, tmp_path).run(listing)
    assert (fetched.files / "1" / "a model+1.onnx").read_bytes() == content
    one = await GsSource("gs://models/m/1/assets/table", gcs.secret).list_files()
    assert [(str(item.path), item.size) for item in one.items] == [("table", 5)]
    assert (await _failure(GsSource("gs://models/none", gcs.secret))).reason == Reason.EMPTY


async def test_a_compressed_object_arrives_as_it_is_stored(gcs: Gcs, tmp_path: Path) -> None:
    stored = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabP\x05\x00\xdc\x0b\x0b\x0e\x02\x00\x00\x00"
    gcs.put("models", {"packed/table.txt": stored}, "gzip")
    source = GsSource("gs://models/packed", gcs.secret)
    listing = await source.list_files()
    assert list(await find_versions(source, listing)) == ["table.txt"]
    fetched = await Fetch(source, tmp_path).run(listing)
    assert (fetched.files / "table.txt").read_bytes() == stored


async def test_a_generation_is_read_until_it_is_gone(gcs: Gcs, tmp_path: Path) -> None:
    for bucket, is_kept in (("versioned", True), ("models", False)):
        gcs.put(bucket, {"one/model.onnx": b"first"})
        source = GsSource(f"gs://{bucket}/one", gcs.secret)
        listing = await source.list_files()
        versions = await find_versions(source, listing)
        gcs.put(bucket, {"one/model.onnx": b"second"})
        with pytest.raises(Failure) as raised:
            await find_versions(source, listing)
        assert raised.value.reason == Reason.CHANGED
        pinned, unread = await list_files(source, versions)
        fetched = await Fetch(source, tmp_path / bucket).run(pinned)
        assert (fetched.files / "model.onnx").read_bytes() == (b"first" if is_kept else b"second")
        assert ("Turn on Object Versioning" in unread) != is_kept
    for version in ("../x", "12", "a&b=c"):
        current, unread = await list_files(source, {"model.onnx": version})
        assert "no longer has version" in unread
        assert [item.version for item in current.items] == [""]


async def test_requests_are_signed_by_the_key_itself(gcs: Gcs, account: Account, tmp_path: Path) -> None:
    """Neither the token_uri of the key nor another address of it is contacted."""
    gcs.put("models", {"signed/model.onnx": b"signed"})
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        key = account.write(token_uri=f"http://127.0.0.1:{trap.getsockname()[1]}/token")
        async with Gate(gcs, account).run() as gate:
            secret = {**gcs.secret, "GOOGLE_BASE_URL": gate.url, "GOOGLE_SERVICE_ACCOUNT_KEY": key}
            source = GsSource("gs://models/signed", secret)
            fetched = await Fetch(source, tmp_path).run(await source.list_files())
            assert (fetched.files / "model.onnx").read_bytes() == b"signed"
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.parametrize("has_tls", [False, True])
async def test_another_host_gets_no_token(account: Account, tmp_path: Path, *, has_tls: bool) -> None:
    contexts, authorities = [], ""
    for host in ("127.0.0.1", "localhost"):
        certificate, key, authority = issued(tmp_path / host, host=host)
        contexts.append(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        contexts[-1].load_cert_chain(certificate, key)
        authorities += authority.read_text()
    own, others = contexts if has_tls else (None, None)
    scheme = "https" if has_tls else "http"
    async with serve(own) as (store, port), serve(others) as (other, other_port):
        store.elsewhere = f"{scheme}://localhost:{other_port}"
        secret = {"GOOGLE_BASE_URL": f"{scheme}://127.0.0.1:{port}", "GOOGLE_SERVICE_ACCOUNT_KEY": account.write()}
        secret |= {"ca.crt": authorities} if has_tls else {"GOOGLE_ALLOW_HTTP": "true"}
        assert (await GsSource("gs://models/m", secret).list_files()).items
        assert "authorization" in store.headers[0]
        assert other.headers
        assert "authorization" not in set.union(*other.headers)


async def test_refused_requests(gcs: Gcs, account: Account) -> None:
    gcs.put("models", {"closed/model.onnx": b"x"})
    async with Gate(gcs, account).run() as gate:
        public = {**gcs.secret, "GOOGLE_BASE_URL": gate.url}
        failure = await _failure(GsSource("gs://models/closed", public | {"key.json": "x"}))
        assert failure.reason == Reason.ACCESS_DENIED
        assert "No credentials were sent: set GOOGLE_SERVICE_ACCOUNT_KEY" in failure.message
        assert "(it has key.json, which set nothing)" in failure.message
        gate.hidden = "closed"
        failure = await _failure(
            GsSource("gs://models/closed", public | {"GOOGLE_SERVICE_ACCOUNT_KEY": account.write()})
        )
    assert failure.reason == Reason.ACCESS_DENIED
    details = (
        "AccessDenied: Access denied; reader@conch.iam.gserviceaccount.com does not have storage.objects.get access"
    )
    for words in (details, "storage.objects.list and storage.objects.get on 'models'"):
        assert words in failure.message
    async with Gate(gcs, None).run() as gate:
        public = {**gcs.secret, "GOOGLE_BASE_URL": gate.url}
        assert (await GsSource("gs://models/closed", public).list_files()).items, "no Authorization header is sent"


@pytest.mark.parametrize(
    ("status", "kind", "code", "reason", "words"),
    [
        (404, "xml", "NoSuchBucket", Reason.BUCKET_NOT_FOUND, "the bucket 'b' does not exist"),
        (401, "xml", "AuthenticationRequired", Reason.ACCESS_DENIED, "set GOOGLE_SERVICE_ACCOUNT_KEY"),
        (429, "xml", "SlowDown", Reason.FETCH_FAILED, "limits requests; the agent tries again"),
        (429, "plain", "", Reason.FETCH_FAILED, "limits requests; the agent tries again"),
        (503, "xml", "ServiceUnavailable", Reason.FETCH_FAILED, "is overloaded; the agent tries again"),
        (500, "plain", "", Reason.FETCH_FAILED, "has a fault; the agent tries again"),
        (400, "xml", "UserProjectMissing", Reason.FETCH_FAILED, "requester pays are not supported"),
        (418, "html", "", Reason.FETCH_FAILED, "Does GOOGLE_BASE_URL name"),
        (200, "html", "", Reason.FETCH_FAILED, "Does GOOGLE_BASE_URL name"),
    ],
)
async def test_errors_as_google_documents_them(status: int, kind: str, code: str, reason: Reason, words: str) -> None:
    bodies = {
        "xml": f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>Words.</Message></Error>",
        "html": "<html><head><title>A page</title></head></html>",
        "plain": "",
    }

    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            status=status, text=bodies[kind], content_type="text/html" if kind == "html" else "text/xml"
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    secret = {"GOOGLE_BASE_URL": f"http://127.0.0.1:{runner.addresses[0][1]}", "GOOGLE_ALLOW_HTTP": "true"}
    failure = await _failure(GsSource("gs://b/m", secret))
    await runner.cleanup()
    assert failure.reason == reason
    assert failure.message.startswith("gs://b/m: ")
    assert words in failure.message, failure.message
    assert "<" not in failure.message


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fd20:ce::254]", "http://[::ffff:169.254.169.254]"])
async def test_a_metadata_server_is_no_endpoint(url: str) -> None:
    failure = await _failure(GsSource("gs://b/m", {"GOOGLE_BASE_URL": url, "GOOGLE_ALLOW_HTTP": "true"}))
    assert "GOOGLE_BASE_URL is" in failure.message
    assert "which Conch never contacts" in failure.message


async def test_a_store_that_is_not_there() -> None:
    failure = await _failure(GsSource("gs://b/m", {"GOOGLE_BASE_URL": "https://127.0.0.1:1"}))
    assert failure.reason == Reason.UNREACHABLE
    assert "nothing listens at 127.0.0.1:1" in failure.message


class MetadataServer:
    """GKE's metadata server: it has a token of the pod's service account."""

    def __init__(self) -> None:
        self.status, self.requests = 200, 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        assert request.path == "/computeMetadata/v1/instance/service-accounts/default/token"
        assert request.headers["Metadata-Flavor"] == "Google"
        if self.status != 200:
            return web.Response(status=self.status, text="Unable to generate access token; IAM returned 403 Forbidden")
        return web.json_response({"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"})


async def test_the_identity_of_a_pod_on_gke(gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    metadata = MetadataServer()

    async def forward(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization", ""))
        raise web.HTTPTemporaryRedirect(f"{gcs.endpoint}{request.raw_path}")

    gcs.put("models", {"pods/a": b"content"})
    async with azure.serve(metadata.answer, None) as server, azure.serve(forward, None) as store:
        monkeypatch.setenv("GCE_METADATA_HOST", server.removeprefix("http://"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        secret = {"GOOGLE_BASE_URL": store, "GOOGLE_ALLOW_HTTP": "true", "NO_PROXY": "127.0.0.1"}
        assert [str(item.path) for item in (await GsSource("gs://models/pods", secret).list_files()).items] == ["a"]
        assert set(seen) == {""}
        assert metadata.requests == 0, "without the key no identity is used"

        metadata.status = 403
        failure = await _failure(GsSource("gs://models/pods", secret | {"GOOGLE_POD_IDENTITY": "true"}))
        assert failure.reason == Reason.ACCESS_DENIED
        assert "refused a token to the pod's service account (Unable to generate access token" in failure.message
        assert "Check that the node pool has GKE's metadata server" in failure.message
        metadata.status = 200
        seen.clear()
        source = GsSource("gs://models/pods", secret | {"GOOGLE_POD_IDENTITY": "true"})
        [item] = (await source.list_files()).items
        assert b"".join([bytes(block) async for block in source.read(item, 0)]) == b"content"
        assert set(seen) == {"Bearer ya29.token"}
        assert metadata.requests == 2


@pytest.mark.parametrize("host", ["attacker.example", "169.254.170.2", "user@127.0.0.1", "metadata.google.internal"])
def test_another_server_is_no_metadata_server(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    with pytest.raises(Failure, match="GCE_METADATA_HOST in the environment of the pod "):
        GsSource("gs://models/m", {"GOOGLE_POD_IDENTITY": "true"})
