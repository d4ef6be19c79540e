"""What a shared claim does to a pod: leases that are lost, a full claim, planted files, and models that share files."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from conch_agent import layout, model_fetch
from conch_agent.cache import CachedSource, CacheUnusableError, open_cache, space
from conch_agent.cache.locks import hold
from conch_agent.download import Progress
from conch_agent.fetch import FetchResult
from conch_agent.layout import Plan, build_folder
from conch_agent.model_fetch import ModelFetch
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.record import read_record
from conch_agent.settings import Settings
from conch_agent.sources.base import Buffer, Item, Listing
from conch_contract import ModelSource
from tests.unit.test_agent_cache import FOLDER, Counted, Pods, end_pod, fetch

CONFIG = 'backend: "python"\ninput [{name: "x" data_type: TYPE_FP32 dims: [1]}]\n'


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


def write_origin(root: Path, **sizes: int) -> Path:
    root.mkdir()
    for name, size in sizes.items():
        (root / name).write_bytes(os.urandom(size))
    return root


def write_model(root: Path, *, extra: Mapping[str, bytes] | None = None) -> Path:
    files = {"config.pbtxt": CONFIG.encode(), "1/model.py": b"class TritonPythonModel: pass\n"} | dict(extra or {})
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def copy_digest(origin: Path) -> str:
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(origin)}\n"
        for path in sorted(path for path in origin.rglob("*") if path.is_file())
    )
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


async def put_into_cache(pods: Pods, origin: Path) -> str:
    """Have the files of a model in the cache, of a pod that has ended; return their digest."""
    digest = (await fetch(pods.open("first"), Counted(origin))).digest
    assert digest == copy_digest(origin)
    return digest


def prepare(settings: Settings, digest: str, name: str = "m") -> Preparation:
    """A model whose store does not answer."""
    (settings.repository).mkdir(parents=True, exist_ok=True)
    settings.downloads.mkdir(parents=True, exist_ok=True)
    source = ModelSource(name=name, format="triton", storage_uri=f"file://{settings.root}/away", digest=digest)
    return Preparation(source, settings)


async def test_a_pod_whose_lease_was_lost_starts_again_without_the_store(pods: Pods, tmp_path: Path) -> None:
    digest = await put_into_cache(pods, write_model(tmp_path / "origin"))
    settings = pods.settings("a")
    await prepare(settings, digest).prepare(None)
    shutil.rmtree(pods.open("a").folder)
    again = prepare(settings, digest)
    assert again.find_existing() is None
    model = await again.prepare(None)
    assert model.cache_problem == ""
    assert (settings.repository / "m" / "1" / "model.py").samefile(
        next(path for path in pods.paths("blobs") if b"Triton" in path.read_bytes())
    )


async def test_triton_finds_the_model_with_the_repository_and_the_claim_alone(pods: Pods, tmp_path: Path) -> None:
    """Its container has no other folder of the agent's."""
    digest = await put_into_cache(pods, write_model(tmp_path / "origin"))
    settings = pods.settings("a")
    await prepare(settings, digest).prepare(None)
    assert (settings.repository / "m").readlink().parent.is_relative_to(pods.claim.resolve())
    settings.downloads.rename(tmp_path / "hidden")
    assert (settings.repository / "m" / "1" / "model.py").exists()


async def test_a_layout_that_the_claim_does_not_take_is_made_in_the_pod(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim can be full of other files, and have all files of the model."""
    digest = await put_into_cache(pods, write_model(tmp_path / "origin"))
    write_text = Path.write_text

    def write_into_full_claim(path: Path, *arguments: object, **options: object) -> int:
        if path.resolve().is_relative_to(pods.claim.resolve()) and "laid" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return write_text(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", write_into_full_claim)
    settings = pods.settings("a")
    model = await prepare(settings, digest).prepare(None)
    assert "No space left" in model.cache_problem
    assert model.digest == digest
    assert (settings.repository / "m" / "config.pbtxt").exists()
    assert not (settings.repository / "m").is_symlink()
    assert list((pods.open("a").folder / "m").rglob("model.py")) == []  # what it does not use may be deleted


async def test_a_source_that_changes_before_it_is_read_again_is_not_laid_out(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was verified are the files of the cache."""
    origin = write_model(tmp_path / "origin")
    monkeypatch.setattr(model_fetch, "open_source", lambda *_: Counted(origin))

    def break_after_change(*_: object, **__: object) -> None:
        write_model(origin, extra={"1/model.py": b"class TritonPythonModel: evil = 1"})
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout, "build_folder", break_after_change)
    with pytest.raises(Failure) as raised:
        await prepare(pods.settings("a"), "").prepare(None)
    assert raised.value.reason == Reason.CHANGED


async def test_files_that_a_model_needs_are_not_deleted_for_its_others(pods: Pods, tmp_path: Path) -> None:
    old = write_origin(tmp_path / "old", shared=4_000_000, old=3_000_000)
    await fetch(pods.open("a"), Counted(old))
    end_pod(pods, "a")
    used = next(path for path in pods.paths("blobs") if path.stat().st_size == 3_000_000)
    os.utime(used, ns=(used.stat().st_atime_ns + 10**9, used.stat().st_mtime_ns))  # the shared one is the oldest
    new = write_origin(tmp_path / "new", new=3_000_000)
    shutil.copy2(old / "shared", new / "shared")
    items = (await Counted(new).list_files()).items
    digest = hashlib.sha256((old / "shared").read_bytes()).hexdigest()
    known = tuple(
        Item(item.path, item.size, item.tag, item.key, digest=f"sha256:{digest}")
        if item.path.name == "shared"
        else item
        for item in items
    )
    cache = pods.open("b", cache_bytes=8_000_000)
    cache.make_space_for(known, "s3://models/new")
    assert digest in {path.name for path in pods.paths("blobs")}
    assert 3_000_000 not in {path.stat().st_size for path in pods.paths("blobs")}


async def test_a_file_is_not_deleted_between_its_download_and_its_use(pods: Pods, tmp_path: Path) -> None:
    """Another pod that needs space deletes all that no pod has a link to, at any moment."""
    origin = write_origin(tmp_path / "origin", **{f"file{number}": 1_000 for number in range(300)})
    size, is_over = 10**9, False
    cache, other = pods.open("a"), pods.open("b", cache_bytes=size)

    def delete() -> None:
        while not is_over:
            with suppress(CacheUnusableError, FileNotFoundError):
                used = sum(path.stat().st_size for folder in ("blobs", "parts") for path in pods.paths(folder))
                other.make_space(size - used + 1, 0)

    deleting = asyncio.create_task(asyncio.to_thread(delete))
    try:
        result = await fetch(cache, Counted(origin))
    finally:
        is_over = True
        await deleting
    assert len(result.sha256) == 300


async def test_nothing_is_deleted_for_a_model_that_does_not_fit(pods: Pods, tmp_path: Path) -> None:
    await fetch(pods.open("a"), Counted(write_origin(tmp_path / "small", small=1_000_000)))
    end_pod(pods, "a")
    large = Counted(write_origin(tmp_path / "large", large=9_000_000))
    with pytest.raises(CacheUnusableError) as raised:
        await fetch(pods.open("b", cache_bytes=8_000_000), large)
    assert "sizeLimit of 8000000" in str(raised.value)
    assert [path.stat().st_size for path in pods.paths("blobs")] == [1_000_000]


@pytest.mark.parametrize("plant", ["folder", "loop", "unreadable"])
async def test_a_blob_that_cannot_be_read_leaves_the_pod_to_the_store(pods: Pods, tmp_path: Path, plant: str) -> None:
    origin = write_model(tmp_path / "origin")
    digest = await put_into_cache(pods, origin)
    blob = pods.paths("blobs")[0]
    blob.unlink()
    if plant == "folder":
        blob.mkdir()
    elif plant == "loop":
        blob.symlink_to(blob.name)
    else:
        blob.symlink_to("/proc/self/mem")
    settings = pods.settings("a")
    source = ModelSource(name="m", format="triton", storage_uri=f"file://{origin}", digest=digest)
    opened = await ModelFetch(source, settings, Progress()).open(digest)
    assert not isinstance(opened, CachedSource)


async def test_two_models_with_one_content_are_both_in_the_cache(pods: Pods, tmp_path: Path) -> None:
    cache, source = pods.open("a"), Counted(write_origin(tmp_path / "origin", weights=100))
    result = await fetch(cache, source)
    record = read_record(pods.paths("parts")[0])
    assert record
    await asyncio.gather(
        *(asyncio.to_thread(cache.write_content, result.digest, {"weights": record}) for _ in range(200))
    )
    assert cache.find_content(result.digest)


@pytest.mark.parametrize("folder", ["", "blobs", "parts", "contents", "pods"])
async def test_a_folder_that_is_a_link_out_of_the_claim_is_refused(pods: Pods, tmp_path: Path, folder: str) -> None:
    inside = tmp_path / "control"
    (inside / "old").mkdir(parents=True)
    os.utime(inside / "old", (0, 0))
    root = pods.claim / FOLDER
    if folder:
        root.mkdir()
        (root / folder).symlink_to(inside)
    else:
        root.symlink_to(inside)
    with pytest.raises(CacheUnusableError) as raised:
        pods.open("a")
    assert "symbolic link" in str(raised.value)
    assert [path.name for path in inside.iterdir()] == ["old"]


async def test_a_part_that_is_a_link_is_not_written_through(pods: Pods, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    source = Counted(write_origin(tmp_path / "origin", weights=100))
    cache, [item] = pods.open("a"), (await source.list_files()).items
    part = cache._get_part(item, source.uri)
    part.file.symlink_to(key)
    with pytest.raises(CacheUnusableError):
        await fetch(cache, source)
    part.file.unlink()
    part.record.with_name(f"{part.record.name}.new").symlink_to(key)
    with pytest.raises(CacheUnusableError):
        await fetch(cache, source)
    assert key.read_text() == "secret"


@pytest.mark.parametrize("plant", ["huge", "pipe", "endless"])
@pytest.mark.parametrize("folder", ["parts", "contents", "format"])
async def test_a_planted_file_does_not_hold_the_agent(pods: Pods, tmp_path: Path, folder: str, plant: str) -> None:
    source = Counted(write_origin(tmp_path / "origin", weights=100))
    digest = (await fetch(pods.open("a"), source)).digest
    paths = {"parts": pods.paths("parts")[0], "contents": pods.paths("contents")[0]}
    path = paths.get(folder, pods.claim / FOLDER / "format")
    path.unlink()
    if plant == "huge":
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    elif plant == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    def use() -> None:
        cache = pods.open("b")
        assert bool(cache.find_content(digest)) == (folder == "parts")
        space.delete_unused(cache._folders, cache.folder, 1, 0, ())

    if folder == "format":
        with pytest.raises(CacheUnusableError):
            await asyncio.wait_for(asyncio.to_thread(use), 10)
    else:
        await asyncio.wait_for(asyncio.to_thread(use), 10)
        assert (await fetch(pods.open("b"), source)).digest == digest


async def test_a_server_without_tags_is_read_by_each_pod(pods: Pods, tmp_path: Path) -> None:
    origin = write_origin(tmp_path / "origin", weights=100)

    class Untagged(Counted):
        async def list_files(self) -> Listing:
            return Listing(tuple(replace(item, tag="") for item in (await super().list_files()).items))

        async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
            tags = {each.key: each.tag for each in (await super().list_files()).items}
            async for chunk in super().read(replace(item, tag=tags[item.key]), offset):
                yield chunk

    source = Untagged(origin)
    caches = [pods.open(name) for name in ("a", "b")]
    parts = {cache._get_part((await source.list_files()).items[0], source.uri).file for cache in caches}
    assert len(parts) == 2  # they do not wait for one another, since each downloads the file
    first = (await fetch(caches[0], source)).digest
    (origin / "weights").write_bytes(os.urandom(100))
    second = (await fetch(caches[1], source)).digest
    assert first != second


async def test_a_file_with_as_many_links_as_the_file_system_allows(pods: Pods, tmp_path: Path) -> None:
    """ext4 has 65,000: an empty file of 500 models has 1,000 in each pod."""
    origin = write_model(tmp_path / "origin", extra={"1/__init__.py": b""})
    digest = await put_into_cache(pods, origin)
    empty = pods.claim / FOLDER / "blobs" / hashlib.sha256(b"").hexdigest()
    folder = tmp_path / "claim" / "links"
    folder.mkdir()
    try:
        for number in range(70_000):
            os.link(empty, folder / str(number))
    except OSError:
        pass
    else:
        pytest.skip("the file system has no such limit")
    settings = pods.settings("a")
    model = await prepare(settings, digest).prepare(None)
    assert model.cache_problem == ""
    assert (settings.repository / "m" / "1" / "__init__.py").exists()


def test_a_layout_of_a_file_with_as_many_links_as_possible(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "empty").touch()
    try:
        for number in range(70_000):
            os.link(source / "empty", source / str(number))
    except OSError:
        pass
    else:
        pytest.skip("the file system has no such limit")
    plan = Plan({PurePosixPath("1/empty"): PurePosixPath("empty")}, (1,), None)
    build_folder(plan, source, tmp_path / "laid", tmp_path / "m", tmp_path / "trash", config="", marker={})
    assert (tmp_path / "m" / "1" / "empty").exists()


async def test_a_model_with_a_name_of_253_characters(pods: Pods, tmp_path: Path) -> None:
    digest = await put_into_cache(pods, write_model(tmp_path / "origin"))
    settings, name = pods.settings("a"), "n" * 253
    await prepare(settings, digest, name).prepare(None)
    assert (settings.repository / name / "config.pbtxt").exists()


async def test_a_content_that_is_written_while_others_are_deleted_stays(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fetch(pods.open("a"), Counted(write_origin(tmp_path / "one", weights=100)))
    source = Counted(write_origin(tmp_path / "two", weights=200))
    listing = await source.list_files()
    iterdir = Path.iterdir
    results: list[FetchResult | None] = []

    def list_then_fetch(path: Path) -> Iterator[Path]:
        found = list(iterdir(path))
        if path.name == "blobs" and not results:
            results.append(None)
            results.append(asyncio.run(fetch(pods.open("b"), source)))
        return iter(found)

    cache = pods.open("c")
    monkeypatch.setattr(Path, "iterdir", list_then_fetch)
    await asyncio.to_thread(space._delete_records, cache._folders)
    monkeypatch.undo()
    assert results[1]
    assert cache.find_content(results[1].digest)
    part = cache._get_part(listing.items[0], source.uri)
    assert json.loads(part.record.read_text())["done"]


async def test_a_file_system_that_locks_only_files_open_for_writing(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS is one (flock(2)), and a blob may not be written."""
    flock = fcntl.flock

    def lock_as_nfs(handle: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    await fetch(pods.open("a"), Counted(write_origin(tmp_path / "one", weights=5_000_000)))
    end_pod(pods, "a")
    (pods.claim / FOLDER / "parts" / f"{'0' * 32}.part").write_bytes(bytes(3_000_000))
    await fetch(pods.open("b", cache_bytes=7_000_000), Counted(write_origin(tmp_path / "two", weights=6_000_000)))
    assert [path.stat().st_size for path in pods.paths("blobs")] == [6_000_000]
    assert [path for path in pods.paths("parts") if path.suffix == ".part"] == []


async def test_a_part_that_is_downloaded_is_not_deleted(pods: Pods) -> None:
    cache = pods.open("a")
    part = pods.claim / FOLDER / "parts" / f"{'0' * 32}.part"
    async with hold(part, lambda: None):
        part.write_bytes(bytes(3_000_000))
        with pytest.raises(CacheUnusableError):
            space.delete_unused(cache._folders, cache.folder, 2_000_000, 4_000_000, ())
        assert part.exists()
    space.delete_unused(cache._folders, cache.folder, 2_000_000, 4_000_000, ())
    assert not part.exists()


@pytest.mark.parametrize("plant", ["folder", "loop", "dangling"])
async def test_what_is_no_file_does_not_hinder_deletions(pods: Pods, tmp_path: Path, plant: str) -> None:
    await fetch(pods.open("a"), Counted(write_origin(tmp_path / "one", weights=5_000_000)))
    end_pod(pods, "a")
    for folder in ("blobs", "parts", "pods", "contents"):
        path = pods.claim / FOLDER / folder / "0.part"
        if plant == "folder":
            (path / "x").mkdir(parents=True)
        else:
            path.symlink_to(path.name if plant == "loop" else "away")
    await fetch(pods.open("b", cache_bytes=7_000_000), Counted(write_origin(tmp_path / "two", weights=6_000_000)))
    assert 5_000_000 not in {path.lstat().st_size for path in pods.paths("blobs")}


async def test_a_model_was_used_as_long_as_its_pod_had_a_lease(pods: Pods, tmp_path: Path) -> None:
    """One that a pod has served for months is not the longest unused."""
    leases = {"served": 5000, "tried": 3000}
    for number, name in enumerate(leases):
        cache = pods.open(name)
        await fetch(cache, Counted(write_origin(tmp_path / f"origin-{name}", weights=3_000_000 + number)))
        for blob in pods.paths("blobs"):
            os.utime(blob, ns=((1000 + blob.stat().st_size % 10) * 10**9, blob.stat().st_mtime_ns))
    for name, time in leases.items():
        folder = pods.claim / FOLDER / "pods" / pods.settings(name).pod_id.read_text()
        os.utime(folder, (time, time))
    new = write_origin(tmp_path / "new-origin", weights=3_000_002)
    await fetch(pods.open("new", cache_bytes=7_000_000), Counted(new))
    assert {path.stat().st_size for path in pods.paths("blobs")} == {3_000_000, 3_000_002}


def test_models_of_a_pod_open_the_cache_at_the_same_time(pods: Pods) -> None:
    settings = pods.settings("a")
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_cache(settings), range(400)))
    assert len({cache.folder for cache in opened if cache}) == 1
