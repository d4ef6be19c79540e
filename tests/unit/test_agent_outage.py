"""A pod without a known digest starts with the last content of its source while that is away, and only then."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.cache import LastContent, open_cache
from conch_agent.cache.last import read_last
from conch_agent.disk import RESERVE
from conch_agent.outage_watch import OutageWatch
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.sources import build_key
from conch_contract import Mirror, ModelSource, ModelWarning, Verification
from conch_contract.report import Origin
from tests.serving.processes import until

OLD, NEW = b"class TritonPythonModel: ...\n", b"class TritonPythonModel: pass\n"
OTHER_DIGEST = f"sha256:{'0' * 64}"


@dataclass
class Site:
    """A web server with one file, which a test has answer with a status."""

    port: int = 0
    content: bytes = OLD
    status: int = 200
    requests: int = 0
    files: set[str] = field(default_factory=lambda: {"/model.py"})

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/model.py"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.content, headers={"ETag": f'"{hash(self.content)}"'})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    runner = web.ServerRunner(web.Server(site.answer))  # type: ignore[arg-type]  # a BaseRequest has all that it reads
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


MakePod = Callable[[str], Settings]


@pytest.fixture
def make_pod(tmp_path: Path) -> MakePod:
    """Return the settings of a new pod that mounts the claim."""
    (tmp_path / "claim").mkdir()

    def make(name: str) -> Settings:
        settings = Settings(root=tmp_path / name)
        settings.repository.mkdir(parents=True)
        settings.downloads.mkdir(parents=True)
        settings.cache.symlink_to(tmp_path / "claim")
        return settings

    return make


def _source(site: Site, digest: str = "", expected: str = "", mirror: str = "") -> ModelSource:
    return ModelSource(
        name="m",
        format="python",
        storage_uri=site.uri,
        digest=digest,
        verify=Verification(digest=expected) if expected else None,
        mirrors=(Mirror(uri=mirror),) if mirror else (),
    )


async def _prepare(source: ModelSource, settings: Settings) -> RepositoryModel:
    return await Preparation(source, settings).prepare(None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_source_that_is_away_is_replaced_by_its_last_content(
    site: Site, make_pod: MakePod, status: int
) -> None:
    first = await _prepare(_source(site), make_pod("a"))
    assert (first.origin, first.fetched) == (Origin.STORAGE, "")
    site.status = status
    settings = make_pod("b")
    model = await _prepare(_source(site), settings)
    assert (model.digest, model.origin, model.uri) == (first.digest, Origin.CACHE, site.uri)
    assert model.fetched
    assert f"HTTP {status}" in model.detour
    assert (settings.repository / "m" / "1" / "model.py").read_bytes() == OLD


async def test_a_source_that_cannot_be_reached_is_away(site: Site, make_pod: MakePod) -> None:
    await _prepare(_source(site), make_pod("a"))
    source, site.port = _source(site), 0
    key, settings = build_key(source.storage_uri, make_pod("b")), make_pod("c")
    cache = open_cache(settings)
    assert cache
    known = cache.find_last(key)
    assert known
    closed = source.model_copy(update={"storage_uri": "http://127.0.0.1:1/model.py"})
    cache.write_last(build_key(closed.storage_uri, settings), known)
    model = await _prepare(closed, settings)
    assert (model.origin, model.digest) == (Origin.CACHE, known.digest)


@pytest.mark.parametrize(("status", "reason"), [(401, "AccessDenied"), (403, "AccessDenied"), (404, "NotFound")])
async def test_a_source_that_refuses_is_not_replaced(site: Site, make_pod: MakePod, status: int, reason: str) -> None:
    """The content was removed, or access to it revoked."""
    await _prepare(_source(site), make_pod("a"))
    site.status = status
    with pytest.raises(Failure) as raised:
        await _prepare(_source(site), make_pod("b"))
    assert raised.value.reason == reason


async def test_a_mirror_that_refuses_keeps_the_cache_out(site: Site, make_pod: MakePod, tmp_path: Path) -> None:
    await _prepare(_source(site), make_pod("a"))
    site.status = 503
    with pytest.raises(Failure) as raised:
        await _prepare(_source(site, mirror=f"file://{tmp_path}/missing"), make_pod("b"))
    assert raised.value.reason == Reason.FETCH_FAILED
    assert "mirrors[0]: NotFound" in raised.value.message


@pytest.mark.parametrize("kind", ["pinned", "verified"])
async def test_a_content_that_is_not_meant_is_not_used(site: Site, make_pod: MakePod, kind: str) -> None:
    await _prepare(_source(site), make_pod("a"))
    site.status = 503
    digests = {"digest": OTHER_DIGEST} if kind == "pinned" else {"expected": OTHER_DIGEST}
    settings = make_pod("b")
    with pytest.raises(Failure, match="HTTP 503"):
        await _prepare(_source(site, **digests), settings)
    assert not list(settings.repository.iterdir())


async def test_a_content_that_is_meant_is_verified_and_used(site: Site, make_pod: MakePod) -> None:
    first = await _prepare(_source(site), make_pod("a"))
    site.status = 503
    model = await _prepare(_source(site, expected=first.digest), make_pod("b"))
    assert (model.origin, model.verified) == (Origin.CACHE, ("Digest",))


async def test_the_last_content_is_that_of_the_last_fetch(site: Site, make_pod: MakePod) -> None:
    first = await _prepare(_source(site), make_pod("a"))
    site.content = NEW
    second = await _prepare(_source(site), make_pod("b"))
    pinned = await _prepare(_source(site, digest=first.digest), make_pod("c"))  # from the cache, so it fetches nothing
    assert pinned.origin == Origin.CACHE
    site.status = 503
    assert (await _prepare(_source(site), make_pod("d"))).digest == second.digest


async def test_a_revision_of_a_listing_starts_with_the_files_of_that_listing_alone(
    site: Site, make_pod: MakePod
) -> None:
    """storage.watch creates a revision for what the source has: the last files may be older."""
    first = await _prepare(_source(site), make_pod("a"))
    site.status = 503
    for identity, is_served in ((first.identity, True), ("other", False)):
        settings = make_pod(f"pod-{is_served}")
        source = _source(site).model_copy(update={"source_identity": identity})
        if is_served:
            assert (await _prepare(source, settings)).source_identity == first.source_identity == identity
        else:
            with pytest.raises(Failure, match="HTTP 503"):
                await _prepare(source, settings)


async def test_without_a_fetch_there_is_no_last_content(site: Site, make_pod: MakePod) -> None:
    site.status = 503
    with pytest.raises(Failure, match="HTTP 503"):
        await _prepare(_source(site), make_pod("a"))


def test_one_uri_at_two_stores_has_two_contents(make_pod: MakePod) -> None:
    """s3://models/m is of the store whose address the Secret has."""
    settings = make_pod("a")
    for name, endpoint in (
        ("one", "https://one:9000"),
        ("other", "https://other:9000"),
        ("slash", "https://one:9000/"),
    ):
        settings.find_secret(name).mkdir(parents=True)
        (settings.find_secret(name) / "AWS_ENDPOINT_URL").write_text(endpoint)
        (settings.find_secret(name) / "AWS_SECRET_ACCESS_KEY").write_text(name)
    keys = {name: build_key("s3://models/m", settings, name) for name in ("one", "other", "slash")}
    assert keys["one"] == keys["slash"] != keys["other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"digest": 1, "identity": "i", "fetched": "2026-11-30T08:00:00+00:00"}',
        '{"digest": "d", "identity": "i", "fetched": "yesterday"}',
        '{"digest": "d", "identity": "i", "fetched": "2026-11-30T08:00:00"}',
        "x" * 5000,
    ],
)
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "record").write_text(text)
    assert read_last(tmp_path / "record") is None


async def test_a_record_goes_with_its_content(site: Site, make_pod: MakePod) -> None:
    settings = make_pod("a")
    await _prepare(_source(site), settings)
    cache = open_cache(settings)
    assert cache
    cache.write_last("gone", LastContent(OTHER_DIGEST, "", "2026-11-30T08:00:00+00:00"))
    (settings.cache / ".conch-cache" / "blobs" / "unused").write_bytes(b"unused")
    cache.make_space(shutil.disk_usage(settings.cache).free - RESERVE + 1, 0)  # one more than there are
    assert cache.find_last("gone") is None
    assert cache.find_last(build_key(site.uri, settings))


async def _until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


def _reason(watch: OutageWatch) -> str:
    return watch.warning.reason if watch.warning else ""


@pytest.mark.parametrize(("content", "reason"), [(OLD, ""), (NEW, "SourceChanged")])
async def test_the_source_is_tried_until_it_answers(site: Site, make_pod: MakePod, content: bytes, reason: str) -> None:
    await _prepare(_source(site), make_pod("a"))
    site.status = 503
    source, settings = _source(site), make_pod("b")
    model = await _prepare(source, settings)
    watch = OutageWatch(settings)
    watch.follow(source, model)
    assert watch.warning
    assert watch.warning.reason == "ServedFromCache"
    assert model.fetched in watch.warning.message
    before = site.requests
    await _until(lambda: site.requests > before, "the source is tried")
    assert _reason(watch) == "ServedFromCache"
    site.status, site.content = 200, content
    await _until(lambda: _reason(watch) == reason, "the source has answered")
    await watch.close()


async def test_a_source_that_answers_and_refuses_is_reported(site: Site, make_pod: MakePod) -> None:
    await _prepare(_source(site), make_pod("a"))
    site.status = 503
    source, settings = _source(site), make_pod("b")
    watch = OutageWatch(settings)
    watch.follow(source, await _prepare(source, settings))
    site.status = 404
    await _until(lambda: "does not exist" in (watch.warning or ModelWarning(reason="", message="")).message, "refused")
    assert _reason(watch) == "ServedFromCache"
    await watch.close()


async def test_a_model_from_its_source_is_not_watched(site: Site, make_pod: MakePod) -> None:
    source, settings = _source(site), make_pod("a")
    watch = OutageWatch(settings)
    watch.follow(source, await _prepare(source, settings))
    assert watch.warning is None
    await watch.close()
