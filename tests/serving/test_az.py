"""Models in Azure Blob Storage: the stories of S3, against Azurite."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch_agent.fetch import Fetch
from conch_agent.object_versions import find_versions, list_files
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.az import AzSource
from conch_agent.sources.base import Source
from conch_contract import ModelReport, ModelSource, ModelState
from tests.serving.azure import Azurite, Versions
from tests.serving.certificates import issued, openssl
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.test_formats import DOUBLE, X
from tests.support.azure import ACCOUNT, make_account_sas, make_container_sas
from tests.support.relay import Relay

SIZE = 48 * 1024 * 1024
MARKERS = ("m/1/.gitkeep", "m/.DS_Store", "m/1/assets", "m/empty", "m/1")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    azurite = Azurite(tmp_path_factory.mktemp("azurite"))
    azurite.make_container("models")
    azurite.make_container("public", is_public=True)
    yield azurite
    azurite.process.kill()


def _double(name: str, factor: int) -> dict[str, bytes]:
    return {f"{name}/model.py": DOUBLE.encode(), f"{name}/factor.py": f"FACTOR = {factor}".encode()}


def _model(name: str, container: str = "models") -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri=f"az://{ACCOUNT}/{container}/{name}")


def _source(azurite: Azurite, path: str, secret: dict[str, str] | None = None) -> AzSource:
    return AzSource(f"az://{ACCOUNT}/{path}", azurite.secret if secret is None else secret)


async def _failure(source: Source) -> Failure:
    with pytest.raises(Failure) as raised:
        await source.list_files()
    return raised.value


def test_a_model_is_served_and_later_pods_serve_the_same_or_nothing(azurite: Azurite, pod: Pod, tmp_path: Path) -> None:
    azurite.put("models", _double("live", 2))
    source = _model("live")
    first = _serve(pod, azurite.secret, source)
    assert first.object_versions == {}, "the account has no versioning"

    azurite.put("models", _double("live", 3))
    later = type(pod)(tmp_path / "later")
    try:
        later.write_secret(azurite.secret)
        later.write_manifest(source.model_copy(update={"digest": first.digest}))
        later.start()
        until(lambda: later.model().reason == Reason.CONTENT_CHANGED, "the content has changed", later.agent)
        azurite.put("models", _double("live", 2))
        later.until_ready()
        assert later.until_reported().digest == first.digest
        assert later.infer("m", X)["y"] == [3.0, 4.0]
    finally:
        later.stop()


async def test_later_pods_serve_the_versions_of_the_first(azurite: Azurite, pod: Pod, tmp_path: Path) -> None:
    async with Versions(azurite).run() as versions:
        secret = azurite.public | {"AZURE_STORAGE_ENDPOINT": versions.url}
        versions.put("models", _double("versions", 2))
        first = await asyncio.to_thread(_serve, pod, secret, _model("versions"))
        assert sorted(first.object_versions) == ["factor.py", "model.py"]
        versions.put("models", _double("versions", 3) | {"versions/added.txt": b"later"})
        later = Pod(tmp_path / "later")
        try:
            content = {"digest": first.digest, "object_versions": first.object_versions}
            report = await asyncio.to_thread(_serve, later, secret, _model("versions").model_copy(update=content))
            assert report.digest == first.digest
        finally:
            later.stop()


def _serve(pod: Pod, secret: dict[str, str], source: ModelSource) -> ModelReport:
    """Start a pod, and return the report of its model, which doubles."""
    pod.write_secret(secret)
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    return pod.until_reported()


def test_an_agent_killed_in_a_download_goes_on_where_it_was(azurite: Azurite, pod: Pod) -> None:
    weights = os.urandom(SIZE)
    files = {"model.py": DOUBLE.encode(), "factor.py": b"FACTOR = 2", "weights.bin": weights}
    azurite.put("models", {f"killed/{name}": content for name, content in files.items()})
    line = Relay(azurite.port)
    line.rate = 6 * 1024 * 1024  # half of it takes four seconds, so that the agent is killed before the end
    sas = make_container_sas("models")
    endpoint = f"http://127.0.0.1:{line.port}/{ACCOUNT}"
    pod.write_secret({**azurite.public, "AZURE_STORAGE_ENDPOINT": endpoint, "AZURE_STORAGE_SAS_TOKEN": sas})
    pod.write_manifest(_model("killed"))
    pod.start()
    until(lambda: pod.model().bytes_fetched > SIZE // 2, "half is fetched", pod.agent)
    assert pod.model().state == ModelState.FETCHING
    assert pod.agent
    pod.agent.kill()
    line.refuses = True
    pod.start_agent()
    until(lambda: pod.model().reason != "", "the store cannot be reached", pod.agent)
    assert "sig=" not in pod.model().message
    line.refuses, line.passed, line.rate = False, 0, 0
    pod.until_ready()
    line.close()
    assert line.passed < SIZE * 3 // 4, "what was on disk is not fetched again"
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    assert pod.model().digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert sas.rpartition("sig=")[2] not in pod.agent.log.read_text()


async def test_files_of_a_prefix_without_folder_markers(azurite: Azurite, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # over two ranges
    azurite.put("models", dict.fromkeys(MARKERS, b""))
    azurite.put("models", {"m/1/a model+1.onnx": content, "m/1/assets/table": b"table", "m/1/__init__.py": b""})
    azurite.put("models", {"m/empty/x": b"x", "mm/other": b"of another folder"})
    source = _source(azurite, "models/m")
    listing = await source.list_files()
    expected = ["1/__init__.py", "1/a model+1.onnx", "1/assets/table", "empty/x"]
    assert [str(item.path) for item in listing.items] == expected
    fetched = await Fetch(source, tmp_path).run(listing)
    assert (fetched.files / "1" / "a model+1.onnx").read_bytes() == content
    one = await _source(azurite, "models/m/1/assets/table").list_files()
    assert [(str(item.path), item.size) for item in one.items] == [("table", 5)]
    assert (await _failure(_source(azurite, "models/none"))).reason == Reason.EMPTY
    assert (await _failure(_source(azurite, "public"))).reason == Reason.EMPTY


async def test_a_compressed_blob_arrives_as_it_is_stored(azurite: Azurite, tmp_path: Path) -> None:
    stored = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabP\x05\x00\xdc\x0b\x0b\x0e\x02\x00\x00\x00"
    azurite.put("models", {"packed/table.txt": stored}, "gzip")
    source = _source(azurite, "models/packed")
    fetched = await Fetch(source, tmp_path).run(await source.list_files())
    assert (fetched.files / "table.txt").read_bytes() == stored


async def test_credentials(azurite: Azurite) -> None:
    for container in ("models", "public"):
        azurite.put(container, {"open/model.onnx": b"x"})
    assert (await _source(azurite, "public/open", azurite.public).list_files()).items
    for sas in (make_container_sas("models"), f"?{make_container_sas('models')}", make_account_sas("rl")):
        secret = azurite.public | {"AZURE_STORAGE_SAS_TOKEN": sas}
        assert (await _source(azurite, "models/open", secret).list_files()).items
    failure = await _failure(_source(azurite, "models/open", azurite.public | {"AZURE_STORAGE_KEY": "x"}))
    assert failure.reason == Reason.ACCESS_DENIED
    assert "No credentials were sent: set AZURE_STORAGE_SAS_TOKEN" in failure.message
    assert "(it has AZURE_STORAGE_KEY, which set nothing)" in failure.message


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({"AZURE_STORAGE_ACCOUNT_KEY": "YW5vdGhlciBrZXk="}, "Check AZURE_STORAGE_ACCOUNT_KEY in the storage Secret"),
        ({"AZURE_STORAGE_SAS_TOKEN": make_container_sas("models", hours=-1)}, "it has not expired"),
        ({"AZURE_STORAGE_SAS_TOKEN": make_container_sas("other")}, "permits reading and listing of 'models'"),
    ],
)
async def test_credentials_that_the_store_refuses(azurite: Azurite, secret: dict[str, str], words: str) -> None:
    failure = await _failure(_source(azurite, "models/m", azurite.public | secret))
    assert failure.reason == Reason.ACCESS_DENIED
    assert words in failure.message
    assert all(value not in failure.message for value in secret.values())
    assert "sig" not in failure.message.replace("signature", "")


async def test_a_container_that_is_not_there(azurite: Azurite) -> None:
    failure = await _failure(_source(azurite, "nothing/m"))
    assert failure.reason == Reason.BUCKET_NOT_FOUND
    assert "the container 'nothing' does not exist" in failure.message
    assert "ContainerNotFound" in failure.message


async def test_versions_are_read_until_they_are_gone(azurite: Azurite, tmp_path: Path) -> None:
    async with Versions(azurite).run() as versions:
        versions.put("models", {"pinned/model.onnx": b"first"})
        source = _source(azurite, "models/pinned", azurite.public | {"AZURE_STORAGE_ENDPOINT": versions.url})
        listing = await source.list_files()
        found = await find_versions(source, listing)
        assert found["model.onnx"].startswith("20")
        versions.put("models", {"pinned/model.onnx": b"second"})
        with pytest.raises(Failure) as raised:
            await find_versions(source, listing)
        assert raised.value.reason == Reason.CHANGED
        pinned, unread = await list_files(source, found)
        assert not unread
        fetched = await Fetch(source, tmp_path).run(pinned)
        assert (fetched.files / "model.onnx").read_bytes() == b"first"
        azurite.remove("models", "pinned/model.onnx")
        versions.put("models", {"pinned/model.onnx": b"third"})
        for version in (found["model.onnx"], "../x", "a&b=c"):
            current, unread = await list_files(source, {"model.onnx": version})
            assert "The container no longer has version" in unread
            assert "Turn on blob versioning" in unread
            assert [item.version for item in current.items] == [""]


@pytest.mark.parametrize("issuer", ["an authority", "itself"])
async def test_a_store_with_a_certificate_of_ones_own(tmp_path: Path, issuer: str) -> None:
    chain, key, authority = issued(tmp_path / "tls")
    if issuer == "itself":  # which the client refuses, and OpenSSL accepts
        chain, key = openssl(tmp_path / "own", "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1")
        authority = chain
    azurite = Azurite(tmp_path, (chain, key, authority))
    try:
        azurite.make_container("models")
        azurite.put("models", {"m/model.onnx": b"x"})
        failure = await _failure(_source(azurite, "models/m"))
        assert failure.reason == Reason.UNREACHABLE
        assert "Put the issuer's certificate into ca.crt of the storage Secret" in failure.message
        for secret in (azurite.secret, azurite.public | {"AZURE_STORAGE_SAS_TOKEN": make_container_sas("models")}):
            source = _source(azurite, "models/m", secret | {"ca.crt": authority.read_text()})
            fetched = await Fetch(source, tmp_path / f"files-{len(secret)}").run(await source.list_files())
            assert (fetched.files / "model.onnx").read_bytes() == b"x"
    finally:
        azurite.process.kill()
