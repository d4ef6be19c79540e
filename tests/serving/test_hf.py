"""Model repositories on a hub: what is listed and fetched, and what later pods of a revision fetch."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.expansion import list_models
from conch_agent.fetch import Fetch
from conch_agent.object_versions import find_versions, list_files
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.hf import HfSource
from conch_contract import ModelSource
from tests.serving.certificates import issued
from tests.serving.pod import Pod
from tests.serving.test_formats import DOUBLE, X
from tests.support.hub import Hub, serve_hub

NAME = "owner/name"
LARGE = b"large" * 1000
FILES = {
    ".gitattributes": b"*.bin filter=lfs\n",
    "README.md": b"# A model\n",
    "model.bin": LARGE,
    "onnx/1/model.onnx": LARGE[::-1],
    "onnx/1/empty": b"",
    "onnx/a name%2F+.txt": b"text",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        served.commit(NAME, FILES)
        yield served


@pytest.fixture
def secret(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_ALLOW_HTTP": "true"}


async def fetch(source: HfSource, folder: Path) -> dict[str, bytes]:
    """Fetch the files of a source as the agent does; return them by path."""
    files = (await Fetch(source, folder).run(await source.list_files())).files
    return {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", {name: content for name, content in FILES.items() if name != ".gitattributes"}),
        ("/", {name: content for name, content in FILES.items() if name != ".gitattributes"}),
        ("/onnx", {name[5:]: content for name, content in FILES.items() if name.startswith("onnx/")}),
        ("/onnx/1/", {"model.onnx": LARGE[::-1], "empty": b""}),
        ("/onnx/1/model.onnx", {"model.onnx": LARGE[::-1]}),
        ("/README.md", {"README.md": b"# A model\n"}),
        ("/.gitattributes", {}),
    ],
)
async def test_a_repository_a_folder_or_a_file_is_fetched(
    hub: Hub, secret: dict[str, str], tmp_path: Path, path: str, expected: dict[str, bytes]
) -> None:
    source = HfSource(f"hf://{NAME}{path}", secret)
    if not expected:
        with pytest.raises(Failure, match="never part of a model"):
            await source.list_files()
        return
    assert await fetch(source, tmp_path) == expected
    sizes = {str(item.path): item.size for item in (await source.list_files()).items}
    assert sizes == {name: len(content) for name, content in expected.items()}
    assert all(f"/{hub.repositories[NAME].references['main']}" in url for url, _ in hub.requests if "/resolve/" in url)


@pytest.mark.parametrize("revision", ["v1", "release/1", "refs/pr/7", ""])
async def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, secret: dict[str, str], revision: str) -> None:
    commit = hub.commit(NAME, {"model.onnx": b"1"}, revision)
    written = revision.replace("/", "%2F") if revision.startswith("release") else revision or commit
    for path in ("", "/model.onnx"):
        [item] = (await HfSource(f"hf://{NAME}@{written}{path}", secret).list_files()).items
        assert (str(item.path), item.version) == ("model.onnx", commit)


async def test_its_client_fetches_the_same_from_it(hub: Hub, secret: dict[str, str], tmp_path: Path) -> None:
    """The tests' hub serves what the client of Hugging Face requests, so that both do not err in the same way."""
    program = (
        "import sys; from huggingface_hub import snapshot_download as load; load(*sys.argv[1:2], local_dir=sys.argv[2])"
    )
    folder = tmp_path / "client"
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-c", program, NAME, str(folder)]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    theirs = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    theirs = {name: content for name, content in theirs.items() if not name.startswith(".cache/")}
    assert theirs == FILES
    theirs.pop(".gitattributes")
    assert await fetch(HfSource(f"hf://{NAME}", secret), tmp_path / "agent") == theirs


async def test_the_token_is_sent_to_the_hub_alone(hub: Hub, secret: dict[str, str], tmp_path: Path) -> None:
    hub.repositories[NAME].is_private = True
    await fetch(HfSource(f"hf://{NAME}", {**secret, "HF_TOKEN": hub.token}), tmp_path)
    assert {token for _, token in hub.requests} == {hub.token}
    assert hub.cdn_requests
    assert {token for _, token in hub.cdn_requests} == {""}


async def test_a_hub_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with serve_hub(context) as hub:
        hub.commit(NAME, {"model.bin": LARGE})
        endpoint = {"HF_ENDPOINT": hub.url}
        with pytest.raises(Failure, match=r"unknown issuer.*Put the issuer's certificate into ca\.crt") as raised:
            await HfSource(f"hf://{NAME}", endpoint).list_files()
        assert raised.value.reason == Reason.UNREACHABLE
        source = HfSource(f"hf://{NAME}", {**endpoint, "ca.crt": authority.read_text()})
        assert await fetch(source, tmp_path / "files") == {"model.bin": LARGE}


async def test_later_pods_fetch_the_commit_that_the_first_one_served(
    hub: Hub, secret: dict[str, str], tmp_path: Path
) -> None:
    first = hub.repositories[NAME].references["main"]
    source = HfSource(f"hf://{NAME}", secret)
    versions = await find_versions(source, await source.list_files())
    assert versions == {"": first}, "one commit, whatever the number of files"
    hub.commit(NAME, {"model.bin": b"later"})
    listing, problem = await list_files(source, versions)
    assert (len(listing.items), problem) == (len(FILES) - 1, "")
    fetched = await Fetch(source, tmp_path).run(listing)
    assert (fetched.files / "model.bin").read_bytes() == LARGE

    del hub.repositories[NAME].commits[first]
    listing, problem = await list_files(source, versions)
    assert [str(item.path) for item in listing.items] == ["model.bin"], "the digest decides whether it is the same"
    assert f"no longer has the files of commit {first}" in problem


async def test_a_read_goes_on_from_an_offset_also_without_ranges(hub: Hub, secret: dict[str, str]) -> None:
    content = os.urandom(3 << 20)
    hub.commit(NAME, {"model.bin": content})
    ranges: list[str | None] = []

    def cut(request: web.Request) -> web.Response | None:
        ranges.append(request.headers.get("Range"))
        return web.Response(body=content[: 2 << 20]) if len(ranges) == 1 else None

    hub.cdn_fault = cut
    source = HfSource(f"hf://{NAME}", secret)
    read = source.read((await source.list_files()).items[0], 1 << 20)
    assert b"".join([chunk async for chunk in read]) == content[1 << 20 : 2 << 20], "a server without ranges"
    read = source.read((await source.list_files()).items[0], 1 << 20)
    assert b"".join([chunk async for chunk in read]) == content[1 << 20 :]
    assert ranges == [f"bytes={1 << 20}-"] * 2


@pytest.mark.parametrize("name", ["model.bin", "README.md"])
async def test_a_file_with_another_digest_is_refused_and_fetched_again(
    hub: Hub, secret: dict[str, str], tmp_path: Path, name: str
) -> None:
    def damage(request: web.Request) -> web.Response | None:
        wrong = FILES[name][::-1]
        is_it = request.path.endswith((name, hashlib.sha256(FILES[name]).hexdigest())) and "/api/" not in request.path
        return web.Response(body=wrong) if is_it and not (name == "model.bin" and "/resolve/" in request.path) else None

    hub.fault = hub.cdn_fault = damage
    source = HfSource(f"hf://{NAME}/{name}", secret)
    with pytest.raises(Failure, match=r"was fetched with the digest .*, and .* is declared") as raised:
        await fetch(source, tmp_path)
    assert raised.value.reason == Reason.DIGEST_MISMATCH
    assert not list((tmp_path / "files").iterdir())
    hub.fault = hub.cdn_fault = lambda _: None
    assert await fetch(source, tmp_path) == {name: FILES[name]}


async def test_a_config_with_another_digest_configures_nothing(
    hub: Hub, secret: dict[str, str], tmp_path: Path
) -> None:
    """It is read before the files are fetched."""
    hub.commit(NAME, {"config.pbtxt": b"max_batch_size: 2", "1/model.py": DOUBLE.encode()})
    settings = Settings(root=tmp_path)
    for folder in (settings.storage, settings.repository, settings.downloads):
        folder.mkdir(parents=True)
    for key, value in secret.items():
        (settings.storage / key).write_text(value)
    hub.fault = lambda request: web.Response(text="max_batch_size: 3") if "/resolve/" in request.path else None
    preparation = Preparation(ModelSource(name="m", format="triton", storage_uri=f"hf://{NAME}"), settings)
    with pytest.raises(Failure, match=r"config\.pbtxt was fetched with the digest") as raised:
        await preparation.prepare(None)
    assert raised.value.reason == Reason.DIGEST_MISMATCH
    hub.fault = lambda _: None
    assert (await preparation.prepare(None)).versions == (1,)


async def test_the_models_of_a_repository_are_folders_on_the_hub(
    hub: Hub, secret: dict[str, str], tmp_path: Path
) -> None:
    config = b'backend: "python"\n'
    files = {"README.md": b"", "a/config.pbtxt": config, "a/1/model.py": b"a", "b/config.pbtxt": config}
    hub.commit(NAME, files | {"b/1/model.py": b"b"}, "v1")
    settings = Settings(root=tmp_path)
    settings.storage.mkdir(parents=True)
    for key, value in secret.items():
        (settings.storage / key).write_text(value)
    parts = await list_models(ModelSource(name="a", format="repository", storage_uri=f"hf://{NAME}@v1"), settings)
    for part in parts:
        listing = await open_source(part.source.storage_uri, settings).list_files()
        assert listing.identity == part.identity
        assert sorted(str(item.path) for item in listing.items) == ["1/model.py", "config.pbtxt"]
    assert [part.source.storage_uri for part in parts] == [f"hf://{NAME}@v1/a", f"hf://{NAME}@v1/b"]


def test_triton_serves_a_model_of_a_hub(hub: Hub, secret: dict[str, str], pod: Pod) -> None:
    files = {"README.md": b"# A model\n", "python/model.py": DOUBLE.encode()}
    hub.commit("owner/double", files | {"python/factor.py": b"FACTOR = 2", "python/table.bin": LARGE})
    hub.repositories["owner/double"].is_private = True
    pod.write_secret(secret)
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="hf://owner/double/python"))
    pod.start()
    assert "no repository owner/double, or it is private" in pod.until_reason("NotFound").message
    pod.write_secret({"HF_TOKEN": hub.token})
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    assert pod.until_reported().object_versions == {"": hub.repositories["owner/double"].references["main"]}
