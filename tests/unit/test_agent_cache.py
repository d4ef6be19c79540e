"""A claim that pods share: one download for all, and a model that is there is not read again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath

import pytest

from conch_agent.cache import Cache, CachedSource, CacheUnusableError, open_cache
from conch_agent.fetch import Fetch, FetchResult
from conch_agent.settings import Settings
from conch_agent.sources.base import Buffer, Item
from conch_agent.sources.local import LocalSource

CONFIG, WEIGHTS = b"max_batch_size: 1", os.urandom(9_000_000)
FOLDER = ".conch-cache"


class Counted(LocalSource):
    """A folder on another machine, which counts what is read from it."""

    def __init__(self, folder: Path, pause: float = 0.0) -> None:
        super().__init__("s3://models/m", folder, folder)
        self.read_bytes = 0
        self.starts: list[int] = []
        self._pause = pause
        self._has_read = asyncio.Event()

    async def until_read(self, size: int) -> None:
        while self.read_bytes < size:
            self._has_read.clear()
            await self._has_read.wait()

    def find_local(self, item: Item) -> Path | None:
        del item
        return None

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        self.starts.append(offset)
        async for chunk in super().read(item, offset):
            self.read_bytes += len(chunk)
            self._has_read.set()
            yield chunk
            await asyncio.sleep(self._pause)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_bytes(CONFIG)
    (folder / "1" / "weights").write_bytes(WEIGHTS)
    return folder


class Pods:
    """Pods that mount one claim."""

    def __init__(self, root: Path) -> None:
        self.claim = root / "claim"
        self.claim.mkdir()
        self._root = root

    def settings(self, name: str, cache_bytes: int = 0) -> Settings:
        root = self._root / name
        (root / "models").mkdir(parents=True, exist_ok=True)
        if not (root / "cache").exists():
            (root / "cache").symlink_to(self.claim)
        return Settings(root=root, cache_bytes=cache_bytes)

    def open(self, name: str, cache_bytes: int = 0) -> Cache:
        cache = open_cache(self.settings(name, cache_bytes))
        assert cache
        return cache

    def paths(self, folder: str) -> list[Path]:
        return sorted((self.claim / FOLDER / folder).iterdir())


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


async def fetch(cache: Cache, source: Counted | CachedSource) -> FetchResult:
    folder = cache.folder / "m"
    return await Fetch(source, folder, cache=cache).run(await source.list_files())


async def test_the_second_pod_reads_nothing_from_the_source(pods: Pods, origin: Path) -> None:
    source = Counted(origin)
    results = [await fetch(pods.open(name), source) for name in ("a", "b")]
    assert source.read_bytes == len(CONFIG) + len(WEIGHTS)
    assert results[0].digest == results[1].digest
    first, second = (result.files / "1" / "weights" for result in results)
    assert first != second
    assert first.samefile(second)
    assert first.read_bytes() == WEIGHTS


async def test_pods_that_start_together_download_each_file_once(pods: Pods, origin: Path) -> None:
    source = Counted(origin, pause=0.05)
    caches = [pods.open(f"pod-{number}") for number in range(10)]
    results = await asyncio.gather(*(fetch(cache, source) for cache in caches))
    assert source.read_bytes == len(CONFIG) + len(WEIGHTS)
    assert len({result.digest for result in results}) == 1
    assert len(pods.paths("blobs")) == 2
    assert [path for path in pods.paths("parts") if path.suffix == ".part"] == []


async def test_a_content_that_is_there_needs_no_source(pods: Pods, origin: Path) -> None:
    digest = (await fetch(pods.open("a"), Counted(origin))).digest
    shutil.rmtree(origin)
    cache = pods.open("b")
    items = cache.find_content(digest)
    assert {str(item.path) for item in items} == {"config.pbtxt", "1/weights"}
    result = await fetch(cache, CachedSource("s3://models/m", items))
    assert result.digest == digest
    assert (result.files / "1" / "weights").read_bytes() == WEIGHTS


async def test_the_next_pod_resumes_where_a_killed_one_stopped(pods: Pods, origin: Path) -> None:
    source = Counted(origin, pause=0.2)
    task = asyncio.create_task(fetch(pods.open("a"), source))
    await source.until_read(8_000_000)  # then the first 4 MiB are on disk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    after = Counted(origin)
    assert (await fetch(pods.open("b"), after)).digest
    assert max(after.starts) >= 4_000_000
    assert len(pods.paths("blobs")) == 2


@pytest.mark.parametrize("damage", ["flipped", "shorter", "deleted"])
async def test_a_damaged_blob_is_downloaded_again_and_pods_keep_theirs(pods: Pods, origin: Path, damage: str) -> None:
    source = Counted(origin)
    digest = (await fetch(pods.open("a"), source)).digest
    blob = next(path for path in pods.paths("blobs") if path.stat().st_size == len(WEIGHTS))
    if damage == "deleted":
        blob.unlink()
    else:
        blob.chmod(0o644)
        content = bytearray(WEIGHTS)
        content[77] ^= 1
        blob.write_bytes(content if damage == "flipped" else content[:1000])
    cache = pods.open("b")
    assert cache.find_content(digest) == ()
    result = await fetch(cache, source)
    assert result.digest == digest
    assert (result.files / "1" / "weights").read_bytes() == WEIGHTS
    assert source.read_bytes == len(CONFIG) + 2 * len(WEIGHTS)


async def test_a_blob_that_was_only_touched_is_hashed_and_kept(pods: Pods, origin: Path) -> None:
    source = Counted(origin)
    digest = (await fetch(pods.open("a"), source)).digest
    for blob in pods.paths("blobs"):
        os.utime(blob)
    assert pods.open("b").find_content(digest)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"../x": ["aa", 1]}', '{"a": "b"}', '{"1/weights": ["aa", "many"]}', "{}", "[" * 100_000]
)
async def test_a_content_that_is_none_is_not_used(pods: Pods, origin: Path, text: str) -> None:
    digest = (await fetch(pods.open("a"), Counted(origin))).digest
    [content] = pods.paths("contents")
    content.write_text(text)
    cache = pods.open("b")
    assert cache.find_content(digest) == ()
    assert (await fetch(cache, Counted(origin))).digest == digest


async def test_a_content_with_files_of_another_digest_is_not_used(pods: Pods, origin: Path) -> None:
    digest = (await fetch(pods.open("a"), Counted(origin))).digest
    [content] = pods.paths("contents")
    other = content.with_name("0" * 64)
    content.rename(other)
    assert pods.open("b").find_content(f"sha256:{other.name}") == ()
    assert pods.open("b").find_content(digest) == ()


@pytest.mark.parametrize("digest", ["sha256:../../x", "", "sha256:", "md5:" + "0" * 32, "sha256:" + "G" * 64])
async def test_what_is_no_digest_names_no_content(pods: Pods, digest: str) -> None:
    assert pods.open("a").find_content(digest) == ()


async def test_what_no_pod_uses_is_deleted_for_another_model(pods: Pods, origin: Path, tmp_path: Path) -> None:
    await fetch(pods.open("a"), Counted(origin))
    end_pod(pods, "a")
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights").write_bytes(os.urandom(5_000_000))
    await fetch(pods.open("b", cache_bytes=10_000_000), Counted(other))
    sizes = {path.stat().st_size for path in pods.paths("blobs")}
    assert 5_000_000 in sizes
    assert len(WEIGHTS) not in sizes
    assert len(pods.paths("contents")) == 1


async def test_what_a_pod_uses_is_never_deleted(pods: Pods, origin: Path, tmp_path: Path) -> None:
    await fetch(pods.open("a"), Counted(origin))
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights").write_bytes(os.urandom(5_000_000))
    with pytest.raises(CacheUnusableError) as raised:
        await fetch(pods.open("b", cache_bytes=10_000_000), Counted(other))
    assert "5000000 more bytes" in str(raised.value)
    assert {path.stat().st_size for path in pods.paths("blobs")} == {len(CONFIG), len(WEIGHTS)}


def end_pod(pods: Pods, name: str) -> None:
    """Let the lease of a pod expire."""
    folder = pods.open(name).folder
    os.utime(folder, (0, 0))


async def test_the_longest_unused_model_is_deleted_first(pods: Pods, tmp_path: Path) -> None:
    sizes = {"old": 3_000_000, "used": 3_000_001, "new": 3_000_002}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(os.urandom(size))
    for name in ("old", "used", "old", "used"):
        await fetch(pods.open(f"pod-of-{name}"), Counted(tmp_path / name))
        end_pod(pods, f"pod-of-{name}")
    await fetch(pods.open("c", cache_bytes=7_000_000), Counted(tmp_path / "new"))
    assert {path.stat().st_size for path in pods.paths("blobs")} == {sizes["used"], sizes["new"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n", "its format is '2', {known}"),
        ("", "its format is '', {known}"),
        ("\0\0", "its format is '\\x00\\x00', {known}"),
        ("9" * 10_000, "its format cannot be read: {file} is no file of up to 9 bytes. Use another claim"),
    ],
    ids=["newer", "empty", "zeros", "long"],
)
def test_a_cache_of_a_newer_version_is_left_alone(pods: Pods, text: str, message: str) -> None:
    (pods.claim / FOLDER).mkdir()
    (pods.claim / FOLDER / "format").write_text(text)
    with pytest.raises(CacheUnusableError) as raised:
        pods.open("a")
    known = "and this agent knows format 1: use the serving image that wrote it, or another claim"
    file = pods.settings("a").cache / FOLDER / "format"
    assert str(raised.value) == message.format(known=known, file=file)
    assert [path.name for path in (pods.claim / FOLDER).iterdir()] == ["format"]


def test_a_pod_without_a_claim_has_no_cache(tmp_path: Path) -> None:
    assert open_cache(Settings(root=tmp_path)) is None


def test_a_claim_that_is_no_folder_is_named(pods: Pods) -> None:
    (pods.claim / FOLDER).write_text("")
    with pytest.raises(CacheUnusableError) as raised:
        pods.open("a")
    assert FOLDER in str(raised.value)


async def test_a_start_from_the_cache_costs_files_and_not_bytes(pods: Pods) -> None:
    """The blob is not read: it is a hole of 64 GiB."""
    size, sha256 = 1 << 36, hashlib.sha256(b"any").hexdigest()
    cache = pods.open("a")
    blob = pods.claim / FOLDER / "blobs" / sha256
    with blob.open("wb") as stream:
        stream.truncate(size)
    os.utime(blob, ns=(0, 946_684_800 * 10**9))
    item = Item(PurePosixPath("weights"), size, sha256, str(blob), digest=f"sha256:{sha256}")
    source = CachedSource("s3://m", (item,))
    result = await fetch(cache, source)
    assert (result.files / "weights").stat().st_size == size
