"""What goes wrong between the agent and a hub: the hub's own words, and what to do. Hostile hubs fill no disk."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources import hf_hub
from conch_agent.sources.hf import HfSource
from conch_contract import ModelSource
from tests.serving.certificates import issued
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.support.hub import Hub, hash_blob, serve_hub

NAME = "owner/name"
LARGE = b"large" * 1000


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        served.commit(NAME, {"onnx/model.onnx": LARGE, "onnx/note.txt": b"text"})
        yield served


@pytest.fixture
def secret(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_ALLOW_HTTP": "true"}


async def _failure(source: HfSource, folder: Path | None = None) -> Failure:
    """Return the failure of the listing, or with a folder that of the fetch."""

    async def run() -> None:
        listing = await source.list_files()
        if folder:
            await Fetch(source, folder).run(listing)

    with pytest.raises(Failure) as raised:
        await run()
    return raised.value


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("hf://owner/gone", ("no repository owner/gone, or it is private", "RepoNotFound", "HF_TOKEN")),
        (f"hf://{NAME}@v2", ("no branch, tag or commit 'v2'", "RevisionNotFound", "after '@'")),
        (f"hf://{NAME}/gone/model.onnx", ("'main' of owner/name has no file or folder 'gone/model.onnx'", "path")),
        (f"hf://{NAME}/onnx/model.onnx/", ("no file or folder 'onnx/model.onnx'", "EntryNotFound")),
    ],
)
@pytest.mark.parametrize("has_token", [True, False])
async def test_what_is_missing_is_named(
    hub: Hub, secret: dict[str, str], uri: str, parts: tuple[str, ...], has_token: bool
) -> None:
    failure = await _failure(HfSource(uri, secret | ({"HF_TOKEN": hub.token} if has_token else {})))
    assert failure.reason == Reason.NOT_FOUND
    assert failure.message.startswith(f"{uri}: ")
    for part in parts:
        assert part in failure.message


async def test_a_gated_model_needs_its_conditions_accepted(hub: Hub, secret: dict[str, str], tmp_path: Path) -> None:
    hub.repositories[NAME].is_gated = True
    failure = await _failure(HfSource(f"hf://{NAME}", secret), tmp_path)
    assert failure.reason == Reason.ACCESS_DENIED
    for part in ("is gated", f"Accept its conditions on {hub.url}/{NAME}", "HF_TOKEN", "storage.secretRef"):
        assert part in failure.message


@pytest.mark.parametrize(
    ("answer", "reason", "parts"),
    [
        (
            (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            Reason.ACCESS_DENIED,
            ("HF_TOKEN",),
        ),
        ((403, {}), Reason.ACCESS_DENIED, ("refused access", "HF_TOKEN")),
        ((403, {"X-Error-Code": "GatedRepo"}), Reason.ACCESS_DENIED, ("Accept its conditions",)),
        ((403, {"X-Error-Message": "Access to this resource is disabled."}), Reason.ACCESS_DENIED, ("has disabled",)),
        ((404, {}), Reason.NOT_FOUND, ("no repository owner/name",)),
        ((429, {"Retry-After": "7"}), Reason.FETCH_FAILED, ("retries in 7 s", "HF_TOKEN", "a hub in the cluster")),
        ((429, {"RateLimit": '"api";r=0;t=55'}), Reason.FETCH_FAILED, ("retries in 55 s",)),
        ((429, {"Retry-After": "9" * 30}), Reason.FETCH_FAILED, ("retries later",)),
        ((429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), Reason.FETCH_FAILED, ("retries in 600 s",)),
        ((500, {"X-Error-Message": "boom"}), Reason.FETCH_FAILED, ("HTTP 500 Internal Server Error: boom", "retries")),
        ((503, {}), Reason.FETCH_FAILED, ("HTTP 503 Service Unavailable", "retries")),
        ((418, {}), Reason.FETCH_FAILED, ("HTTP 418", "HF_ENDPOINT")),
    ],
)
async def test_an_error_of_the_hub_has_a_remedy(
    secret: dict[str, str], hub: Hub, answer: tuple[int, dict[str, str]], reason: Reason, parts: tuple[str, ...]
) -> None:
    status, headers = answer
    hub.fault = lambda _: web.Response(status=status, headers=headers)
    failure = await _failure(HfSource(f"hf://{NAME}", secret))
    assert failure.reason == reason, failure.message
    for part in parts:
        assert part in failure.message


def _file(**changes: object) -> dict[str, Any]:
    return {"type": "file", "oid": hash_blob(b"text"), "size": 4, "path": "note.txt", **changes}


@pytest.mark.parametrize(
    ("tree", "reason", "part"),
    [
        ("<html><title>Login</title></html>", Reason.FETCH_FAILED, "a page: Login"),
        ("", Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        ("[" * 100_000, Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        ('{"a":' * 100_000, Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        ('{"error": "no"}', Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        ("[1]", Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        (json.dumps([_file(size=-1)]), Reason.FETCH_FAILED, "size: Input should be greater than or equal to 0"),
        (json.dumps([_file(size=10**4000)]), Reason.FETCH_FAILED, "size"),
        (json.dumps([_file(size="4.5")]), Reason.FETCH_FAILED, "size"),
        (json.dumps([_file(oid="")]), Reason.FETCH_FAILED, "oid"),
        (json.dumps([_file(oid="a" * 129)]), Reason.FETCH_FAILED, "oid"),
        (json.dumps([_file(lfs={"oid": "a" * 64, "size": -1})]), Reason.FETCH_FAILED, "lfs.size"),
        (json.dumps([_file(path="\ud800")]), Reason.FETCH_FAILED, "does not answer as a hub's API does"),
        (json.dumps([_file(path="a/../../x")]), Reason.UNSAFE_PATH, "plain relative names"),
        (json.dumps([_file(path="/etc/passwd")]), Reason.UNSAFE_PATH, "plain relative names"),
        (json.dumps([_file(path="a\0b")]), Reason.UNSAFE_PATH, "plain relative names"),
        (json.dumps([_file(path=""), _file(path=".gitattributes")]), Reason.EMPTY, "never part of a model"),
        (json.dumps([{"type": "directory", "path": "a"}]), Reason.EMPTY, "holds no files"),
        (json.dumps([0] * 1_000_000), Reason.FETCH_FAILED, "Input should be an object"),
        (json.dumps([{"type": "", "path": ""}] * 10_001), Reason.FETCH_FAILED, "at most 10000 items"),
        (json.dumps([_file(path="a" * 4097)]), Reason.FETCH_FAILED, "path"),
        ("[" + " " * (17 << 20) + "]", Reason.FETCH_FAILED, "more than 4194304 bytes"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
async def test_a_tree_that_is_none(hub: Hub, secret: dict[str, str], tree: str, reason: Reason, part: str) -> None:
    hub.fault = lambda request: web.Response(text=tree) if "/tree/" in request.path else None
    failure = await _failure(HfSource(f"hf://{NAME}", secret))
    assert failure.reason == reason, failure.message
    assert part in failure.message
    assert len(failure.message) < 1000


async def test_a_file_outside_of_the_folder_is_refused(hub: Hub, secret: dict[str, str]) -> None:
    tree = json.dumps([_file(path="other/note.txt")])
    hub.fault = lambda request: web.Response(text=tree) if "/tree/" in request.path else None
    failure = await _failure(HfSource(f"hf://{NAME}/onnx", secret))
    assert "'other/note.txt', which is not below 'onnx'" in failure.message


@pytest.mark.parametrize("sha", ["main", "", None, 7, "../../x", "A" * 40])
async def test_a_revision_without_a_commit_is_refused(hub: Hub, secret: dict[str, str], sha: object) -> None:
    hub.fault = lambda request: web.json_response({"sha": sha}) if "/revision/" in request.path else None
    failure = await _failure(HfSource(f"hf://{NAME}", secret))
    assert failure.reason == Reason.FETCH_FAILED
    assert "sha: " in failure.message


async def test_pages_end(hub: Hub, secret: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_hub, "_MOST_PAGES", 20)

    def answer(request: web.Request) -> web.Response | None:
        url = f"{hub.url}{request.rel_url.update_query(cursor=len(hub.requests))}"
        link = {"Link": f'<{url}>; rel="next"'}
        return web.Response(text="[]", headers=link) if "/tree/" in request.path else None

    hub.fault = answer
    failure = await _failure(HfSource(f"hf://{NAME}", secret))
    assert (failure.reason, len(hub.requests)) == (Reason.TOO_LARGE, 21)


@pytest.mark.parametrize(
    "link", ["https://huggingface.co/x", "//other.example/x", "ftp://a", "http://127.0.0.1:1/x", "mailto:x", "data:a"]
)
async def test_a_page_of_another_server_is_not_followed(hub: Hub, secret: dict[str, str], link: str) -> None:
    headers = {"Link": f'<{link}>; rel="next"'}
    hub.fault = lambda request: web.Response(text="[]", headers=headers) if "/tree/" in request.path else None
    failure = await _failure(HfSource(f"hf://{NAME}", secret | {"HF_TOKEN": hub.token}))
    assert failure.reason == Reason.FETCH_FAILED
    assert "which is not followed. Configure the hub to write its own address" in failure.message


async def test_an_address_of_a_redirect_is_not_in_a_message(hub: Hub, secret: dict[str, str], tmp_path: Path) -> None:
    """Its query may be a signature, with which anyone fetches the file."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nBad\x00Header: 1\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        location = {"Location": f"http://127.0.0.1:{port}/blob?Signature=SECRET"}
        hub.fault = lambda request: web.Response(status=302, headers=location) if "/resolve/" in request.path else None
        failure = await _failure(HfSource(f"hf://{NAME}", secret), tmp_path)
    assert f"127.0.0.1:{port} does not answer in HTTP" in failure.message
    assert "SECRET" not in failure.message


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]"])
async def test_no_file_is_fetched_from_a_metadata_server(
    hub: Hub, secret: dict[str, str], tmp_path: Path, host: str
) -> None:
    hub.cdn = f"http://{host}"
    failure = await _failure(HfSource(f"hf://{NAME}", secret), tmp_path)
    assert failure.reason == Reason.FETCH_FAILED
    assert "which Conch never contacts" in failure.message
    failure = await _failure(HfSource(f"hf://{NAME}", {**secret, "HF_ENDPOINT": f"http://{host}"}))
    assert "which Conch never contacts" in failure.message


async def test_the_token_stays_away_once_a_redirect_has_left_the_hub(
    hub: Hub, secret: dict[str, str], tmp_path: Path
) -> None:
    """Another server sends the agent back, to what the token may read and the model is not."""
    hub.cdn_fault = lambda _: web.Response(status=302, headers={"Location": f"{hub.url}/api/models/{NAME}"})
    await _failure(HfSource(f"hf://{NAME}/onnx/model.onnx", secret | {"HF_TOKEN": hub.token}), tmp_path)
    assert hub.requests[-1] == (f"/api/models/{NAME}", "")
    assert {token for _, token in hub.requests[:-1]} == {hub.token}
    assert {token for _, token in hub.cdn_requests} == {""}


async def test_a_redirect_does_not_leave_tls(hub: Hub, tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with serve_hub(context) as secure:
        secure.commit(NAME, {"model.bin": LARGE})
        secure.cdn = hub.cdn
        source = HfSource(f"hf://{NAME}", {"HF_ENDPOINT": secure.url, "ca.crt": authority.read_text()})
        failure = await _failure(source, tmp_path / "files")
    assert "redirects from https to http" in failure.message
    assert "Correct HF_ENDPOINT in the storage Secret" in failure.message
    assert hub.cdn_requests == []


async def test_a_hub_that_does_not_answer(secret: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_hub, "_SECONDS", 0.2)
    server = await asyncio.start_server(lambda *_: asyncio.sleep(5), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    failure = await _failure(HfSource(f"hf://{NAME}", {**secret, "HF_ENDPOINT": f"http://127.0.0.1:{port}"}))
    assert failure.reason == Reason.UNREACHABLE
    assert "did not complete its answer" in failure.message
    server.close()
    failure = await _failure(HfSource(f"hf://{NAME}", {**secret, "HF_ENDPOINT": f"http://127.0.0.1:{port}"}))
    assert failure.reason == Reason.UNREACHABLE
    assert "connection refused" in failure.message


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_an_error_of_another_server_is_not_the_hubs(
    hub: Hub, secret: dict[str, str], tmp_path: Path, status: int
) -> None:
    """A signed URL has expired, or a CDN lacks the file: the next try gets another URL."""
    hub.cdn_fault = lambda _: web.Response(status=status, text="expired", headers={"Retry-After": "2"})
    failure = await _failure(HfSource(f"hf://{NAME}", secret), tmp_path)
    assert (failure.reason, failure.retry_after) == (Reason.FETCH_FAILED, 2.0)
    assert "the server 127.0.0.1, to which the hub redirects for its files, answered HTTP" in failure.message
    assert "expired" in failure.message


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x"])
async def test_a_file_of_another_size_is_refused(hub: Hub, secret: dict[str, str], tmp_path: Path, change: Any) -> None:
    hub.cdn_fault = lambda _: web.Response(body=change(LARGE))
    failure = await _failure(HfSource(f"hf://{NAME}", secret), tmp_path)
    assert failure.reason == Reason.FETCH_FAILED
    assert "5000 bytes" in failure.message
    hub.cdn_fault = lambda _: None
    source = HfSource(f"hf://{NAME}", secret)
    fetched = await Fetch(source, tmp_path).run(await source.list_files())
    assert (fetched.files / "onnx" / "model.onnx").read_bytes() == LARGE


def test_the_agent_retries_when_the_hub_permits_it(hub: Hub, secret: dict[str, str], pod: Pod) -> None:
    times: list[float] = []

    def limit(_: web.Request) -> web.Response | None:
        times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "3"}) if len(times) == 1 else None

    hub.fault = limit
    pod.write_secret(secret)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"hf://{NAME}/onnx"))
    pod.start_agent()
    assert "retries in 3 s" in pod.until_reason("FetchFailed").message
    until(lambda: len(times) > 1, "the agent retries", pod.agent)
    assert 3 <= times[1] - times[0] < 8
