"""A bucket with versioning: later pods of a revision fetch the versions that its first pod served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import obstore
import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.object_versions import find_versions, list_files
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.sources.base import Item, Listing
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.s3 import S3Source
from conch_agent.warmup.folder import fetch_requests
from conch_contract import ModelReport, ModelSource, Warmup
from tests.serving.pod import Pod
from tests.serving.store import VERSIONED, Store
from tests.serving.test_formats import DOUBLE, X


@pytest.fixture
def versioned(store: Store) -> Store:
    store.set_versioning()
    return store


def _double(name: str, factor: int) -> dict[str, bytes]:
    return {f"{name}/model.py": DOUBLE.encode(), f"{name}/factor.py": f"FACTOR = {factor}".encode()}


def _source(name: str, bucket: str = VERSIONED) -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri=f"s3://{bucket}/{name}")


def _pinned(source: ModelSource, served: ModelReport | RepositoryModel) -> ModelSource:
    """Return the manifest of later pods."""
    return source.model_copy(update={"digest": served.digest, "object_versions": served.object_versions})


def _settings(store: Store, root: Path) -> Settings:
    """Return the settings of a new pod, with the storage Secret."""
    settings = Settings(root=root)
    for folder in (settings.storage, settings.repository, settings.downloads):
        folder.mkdir(parents=True)
    for key, value in store.secret.items():
        (settings.storage / key).write_text(value)
    return settings


async def _lay(store: Store, root: Path, source: ModelSource) -> RepositoryModel:
    """Fetch and lay out as a new pod does."""
    return await Preparation(source, _settings(store, root)).prepare(None)


async def _refusal(store: Store, root: Path, source: ModelSource) -> Failure:
    with pytest.raises(Failure) as raised:
        await _lay(store, root, source)
    return raised.value


def _remove(store: Store, name: str, versions: dict[str, str]) -> None:
    for path, version in versions.items():
        store.remove_version(f"{name}/{path}", version)


def test_a_later_pod_serves_what_the_first_one_serves_after_it_was_overwritten(
    versioned: Store, pod: Pod, tmp_path: Path
) -> None:
    versioned.put(VERSIONED, _double("live", 2))
    source = _source("live")
    pod.write_secret(versioned.secret)
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    first = pod.until_reported()
    assert sorted(first.object_versions) == ["factor.py", "model.py"]

    versioned.put(VERSIONED, _double("live", 3) | {"live/added.txt": b"later"})
    obstore.delete(versioned.bucket(VERSIONED), "live/model.py")
    pinned = _pinned(source, first)
    with _another(pod, tmp_path / "later") as later:
        later.write_secret(versioned.secret)
        later.write_manifest(pinned)
        later.start()
        later.until_ready()
        assert later.infer("m", X)["y"] == [3.0, 4.0]
        report = later.until_reported()
        assert report.digest == first.digest
        assert report.object_versions == {}, "the manifest has them"

    pod.write_manifest(pinned)
    assert pod.agent
    pod.agent.kill()
    pod.start_agent()
    pod.until_ready()
    assert pod.triton
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1, "a manifest that names the versions loads nothing"


@contextmanager
def _another(pod: Pod, root: Path) -> Iterator[Pod]:
    """A second pod of the same kind; it ends with the block."""
    another = type(pod)(root)
    try:
        yield another
    finally:
        another.stop()


async def test_a_pod_that_fetched_later_content_comes_to_serve_what_its_revision_serves(
    versioned: Store, tmp_path: Path
) -> None:
    """Two pods start at once, the object is overwritten between them, and the other one is ready first."""
    versioned.put(VERSIONED, _double("race", 2))
    source = _source("race")
    first = await _lay(versioned, tmp_path / "first", source)
    versioned.put(VERSIONED, _double("race", 3))
    settings = _settings(versioned, tmp_path / "second")
    preparation = Preparation(source, settings)
    second = await preparation.prepare(None)
    assert second.digest != first.digest
    preparation.pin(_pinned(source, first))
    assert (await preparation.prepare(second)).digest == first.digest
    assert (settings.repository / "m" / "1" / "factor.py").read_bytes() == b"FACTOR = 2"


async def test_the_warm_up_job_sends_the_requests_of_the_versions_that_are_served(
    versioned: Store, tmp_path: Path
) -> None:
    key = "warmed/warmup/a.json"
    versioned.put(VERSIONED, _double("warmed", 2) | {key: b"first"})
    source = _source("warmed").model_copy(update={"warmup": Warmup(path="warmup")})
    pinned = _pinned(source, await _lay(versioned, tmp_path / "first", source))
    versioned.put(VERSIONED, {key: b"second"})
    settings = _settings(versioned, tmp_path / "job")
    for each, content in ((source, b"second"), (pinned, b"first")):
        files = await fetch_requests(each, settings, tmp_path / "scratch")
        assert (files / "warmup" / "a.json").read_bytes() == content


async def test_versions_are_those_of_the_files_and_none_without_versioning(versioned: Store, tmp_path: Path) -> None:
    versioned.put("models", _double("plain", 2))
    laid = await _lay(versioned, tmp_path / "plain", _source("plain", "models"))
    assert laid.object_versions == {}
    key = "one/model.onnx"
    version = obstore.put(versioned.bucket(VERSIONED), key, b"first")["version"]
    obstore.put(versioned.bucket(VERSIONED), key, b"second")
    source = S3Source(f"s3://{VERSIONED}/{key}", versioned.secret)
    now = await source.list_files()
    assert list(await find_versions(source, now)) == [""], "storageUri is the object itself"
    listing, unread = await list_files(source, {"": str(version)})
    fetched = await Fetch(source, tmp_path / "one").run(listing)
    assert (unread, (fetched.files / "model.onnx").read_bytes()) == ("", b"first")
    assert await find_versions(source, listing) == {"": version}

    obstore.put(versioned.bucket(VERSIONED), key, b"third")
    with pytest.raises(Failure) as raised:
        await find_versions(source, now)
    assert raised.value.reason == Reason.CHANGED, "not the version of another content than that which was listed"


async def test_an_object_from_before_versioning_has_a_version_too(store: Store, tmp_path: Path) -> None:
    store.set_versioning("Suspended")
    store.put(VERSIONED, _double("before", 2))
    source = _source("before")
    laid = await _lay(store, tmp_path / "first", source)
    assert set(laid.object_versions.values()) == {"null"}
    store.set_versioning()
    store.put(VERSIONED, _double("before", 3))
    assert (await _lay(store, tmp_path / "later", _pinned(source, laid))).digest == laid.digest
    store.set_versioning("Suspended")
    store.put(VERSIONED, _double("before", 4))
    failure = await _refusal(store, tmp_path / "refused", _pinned(source, laid))
    assert failure.reason == Reason.CONTENT_CHANGED, "the digest decides: without versioning null is overwritten"


async def test_a_version_that_is_gone_is_named_and_the_current_files_are_compared(
    versioned: Store, tmp_path: Path
) -> None:
    versioned.put(VERSIONED, _double("gone", 2))
    source = _source("gone")
    laid = await _lay(versioned, tmp_path / "first", source)
    versioned.put(VERSIONED, _double("gone", 3))
    _remove(versioned, "gone", {"factor.py": laid.object_versions["factor.py"]})
    failure = await _refusal(versioned, tmp_path / "refused", _pinned(source, laid))
    assert failure.reason == Reason.CONTENT_CHANGED
    for words in (
        f"s3://{VERSIONED}/gone has changed: this revision serves {laid.digest}",
        f"The bucket no longer has version {laid.object_versions['factor.py']} of factor.py",
        "lifecycle rules",
        "change the predictor",
    ):
        assert words in failure.message

    versioned.put(VERSIONED, _double("gone", 2))
    again = await _lay(versioned, tmp_path / "again", _pinned(source, laid))
    assert again.digest == laid.digest, "the same content is the same, whatever its version"
    _remove(versioned, "gone", {"model.py": laid.object_versions["model.py"]} | again.object_versions)
    for path in ("model.py", "factor.py"):
        obstore.delete(versioned.bucket(VERSIONED), f"gone/{path}")
    failure = await _refusal(versioned, tmp_path / "deleted", _pinned(source, laid))
    assert failure.reason == Reason.EMPTY
    assert "holds no files" in failure.message
    assert "The bucket no longer has version" in failure.message


async def test_credentials_that_may_not_read_versions_are_named(versioned: Store, tmp_path: Path) -> None:
    versioned.deny_versions("denied")
    versioned.put(VERSIONED, _double("denied", 2))
    source = _source("denied")
    laid = await _lay(versioned, tmp_path / "first", source)
    assert laid.object_versions, "the first pod needs no such right"
    again = await _lay(versioned, tmp_path / "again", _pinned(source, laid))
    assert again.digest == laid.digest, "nor does a later one while nothing has changed"
    versioned.put(VERSIONED, _double("denied", 3))
    failure = await _refusal(versioned, tmp_path / "refused", _pinned(source, laid))
    assert failure.reason == Reason.CONTENT_CHANGED
    assert "allow s3:GetObjectVersion to the credentials in the storage Secret" in failure.message
    versioned.allow_versions()
    assert (await _lay(versioned, tmp_path / "later", _pinned(source, laid))).digest == laid.digest


@pytest.mark.parametrize("version", ["../../x", "a&uploads=", "0" * 32, "x y"])
async def test_a_version_that_the_store_never_made_leads_to_no_other_content(
    versioned: Store, tmp_path: Path, version: str
) -> None:
    versioned.put(VERSIONED, _double("odd", 2))
    source = _source("odd")
    laid = await _lay(versioned, tmp_path / "first", source)
    versioned.put(VERSIONED, _double("odd", 3))
    forged = source.model_copy(update={"digest": laid.digest, "object_versions": {"model.py": version}})
    failure = await _refusal(versioned, tmp_path / "refused", forged)
    assert failure.reason == Reason.CONTENT_CHANGED
    assert "no longer has version" in failure.message


async def test_a_path_that_leaves_the_prefix_is_refused(versioned: Store) -> None:
    source = S3Source(f"s3://{VERSIONED}/inside", versioned.secret)
    with pytest.raises(Failure) as raised:
        await list_files(source, {"../outside": "null"})
    assert raised.value.reason == Reason.UNSAFE_PATH


async def test_a_store_that_refuses_the_question_for_versions_keeps_no_model_from_serving() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=405)

    app = web.Application()
    app.router.add_route("HEAD", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    secret = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{runner.addresses[0][1]}", "AWS_ALLOW_HTTP": "true"}
    listing = Listing((Item(PurePosixPath("model.onnx"), 1, '"1"', "m/model.onnx"),))
    assert await find_versions(S3Source("s3://b/m", secret), listing) == {}
    await runner.cleanup()


async def test_no_version_is_read_where_none_can_be_recorded() -> None:
    """There is no store, so that a request would fail."""
    source = S3Source("s3://gone/m", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "true"})
    paths = [PurePosixPath(f"{number:01000}") for number in range(33)]  # over 32 KiB of paths
    many = Listing(tuple(Item(path, 1, '"1"', f"m/{path}") for path in paths))
    assert await find_versions(source, many) == {}
    one = Item(PurePosixPath("model.onnx"), 1, '"1"', "m/model.onnx")
    other = HttpsSource("http://127.0.0.1:1/model.onnx", {})
    assert await find_versions(other, Listing((one,))) == {}, "a source of another kind has none"
    with pytest.raises(Failure) as raised:
        await find_versions(source, Listing((one,)))
    assert raised.value.reason == Reason.UNREACHABLE
