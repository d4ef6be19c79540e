"""Archives in a pod and in a cache: agents are killed at any step, and disks become full."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from conch_agent import unpacking
from conch_agent.archives import Unpacker
from conch_agent.cache import CacheUnusableError, open_cache
from conch_agent.cache.blobs import Blobs
from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.record import compute_digest
from conch_agent.settings import Settings
from conch_agent.sources.base import Archives, Buffer, Item, Listing
from conch_agent.sources.local import LocalSource
from conch_agent.unpacking import Unpacking
from tests.support.tars import header, pack_files

_FORK = multiprocessing.get_context("fork")


class Packed(LocalSource):
    """A folder on another machine, all files of which are archives. It counts what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__("oci://r.example/m:v1", folder, folder)
        self.read_bytes = 0

    async def list_files(self) -> Listing:
        items = (await super().list_files()).items
        return Listing((), Archives(items))

    def find_local(self, item: Item) -> Path | None:
        del item
        return None

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        async for chunk in super().read(item, offset):
            for start in range(0, len(chunk), 50_000):
                piece = chunk[start : start + 50_000]
                self.read_bytes += len(piece)
                step()
                yield piece


_left = 1 << 60


def step() -> None:
    """Kill the process at its last step."""
    global _left  # noqa: PLW0603
    _left -= 1
    if _left < 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Stepping(Unpacker):
    """An unpacker with the steps of the process."""

    def run(self, files: Sequence[Path]) -> Iterator[None]:
        for _ in super().run(files):
            step()
            yield


class Model:
    """Archives of a model, and the pods that fetch it."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)  # noqa: S311  no secret
        self.origin, self.claim = root / "origin", root / "claim"
        self.origin.mkdir()
        self.claim.mkdir()
        same = self.random.randbytes(70_000)
        self.files = {f"1/{number}.bin": self.random.randbytes(number * 4_000) for number in range(10)}
        self.files |= {"1/same": same, "2/same": same, "config.pbtxt": b""}
        names = list(self.files)
        for number, part in enumerate((names[:5], names[5:])):
            content = gzip.compress(pack_files({name: self.files[name] for name in part}))
            (self.origin / f"{number}.tar.gz").write_bytes(content)
        self.digest = compute_digest({name: hashlib.sha256(each).hexdigest() for name, each in self.files.items()})

    async def fetch(self, pod: str, *, is_cached: bool) -> tuple[Packed, Path]:
        root = self.root / pod
        (root / "models").mkdir(parents=True, exist_ok=True)
        if is_cached and not (root / "cache").exists():
            (root / "cache").symlink_to(self.claim)
        cache = open_cache(Settings(root=root))
        folder = cache.folder / "m" if cache else root / "downloads"
        folder.mkdir(exist_ok=True)
        packed = Packed(self.origin)
        part = Unpacking(packed, folder, cache=cache)
        source, listing = await part.run(await packed.list_files())
        result = await Fetch(source, folder, cache=cache).run(listing)
        part.clear()
        assert result.digest == self.digest
        for name, content in self.files.items():
            assert (result.files / name).read_bytes() == content, name
        assert not [name for name in ("archives", "beside", "unpacked") if (folder / name).exists()]
        return packed, result.files

    def start(self, pod: str, steps: int, *, is_cached: bool) -> BaseProcess:
        process = _FORK.Process(target=self._run, args=(pod, steps, is_cached), daemon=True)
        process.start()
        return process

    def _run(self, pod: str, steps: int, is_cached: bool) -> None:
        global _left  # noqa: PLW0603
        _left = steps
        unpacking.Unpacker = Stepping  # type: ignore[attr-defined]
        share = Blobs.share

        def shared(*arguments: object) -> None:
            step()
            share(*arguments)  # type: ignore[arg-type]
            step()

        Blobs.share = shared  # type: ignore[method-assign,assignment]
        asyncio.run(self.fetch(pod, is_cached=is_cached))

    def check_cache(self) -> None:
        cache = self.claim / ".conch-cache"
        for blob in (cache / "blobs").iterdir():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        assert list((cache / "parts").glob("*.part")) == []
        assert len(list((cache / "archives").iterdir())) == 1


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path, 0)


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_an_agent_that_is_killed_at_each_step(tmp_path: Path, seed: int, is_cached: bool) -> None:
    model = Model(tmp_path, seed)
    steps, kills = seed, 0
    while True:
        process = model.start(f"pod-{steps % 2 if is_cached else 0}", steps, is_cached=is_cached)
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        steps, kills = steps + 3, kills + 1
    assert kills > 5
    asyncio.run(model.fetch("last", is_cached=is_cached))
    if is_cached:
        model.check_cache()


@pytest.mark.parametrize("seed", range(3))
def test_two_agents_of_which_one_is_killed(tmp_path: Path, seed: int) -> None:
    model = Model(tmp_path, seed)
    for _ in range(4):
        first = model.start("a", model.random.randrange(60), is_cached=True)
        second = model.start("b", model.random.randrange(60), is_cached=True)
        for process in (first, second):
            process.join(60)
            assert process.exitcode in {0, -signal.SIGKILL}
    for pod in ("a", "b"):
        asyncio.run(model.fetch(pod, is_cached=True))
    model.check_cache()


async def test_pods_that_start_together_unpack_once(model: Model) -> None:
    found = await asyncio.gather(*(model.fetch(f"pod-{number}", is_cached=True) for number in range(5)))
    total = sum(path.stat().st_size for path in model.origin.iterdir())
    assert sum(packed.read_bytes for packed, _ in found) == total
    assert len({(files / "1" / "same").stat().st_ino for _, files in found}) == 1
    model.check_cache()


async def test_archives_are_deleted_when_space_is_needed_and_unpacked_again(model: Model) -> None:
    await model.fetch("a", is_cached=True)
    cache = model.claim / ".conch-cache"
    used = {hashlib.sha256(content).hexdigest() for content in model.files.values()}
    assert {path.name for path in (cache / "blobs").iterdir()} > used, "archives are blobs that no pod uses"
    sizes = {path.name: path.stat().st_size for path in (cache / "blobs").iterdir()}
    records = sum(path.stat().st_size for path in (cache / "parts").iterdir())
    opened = open_cache(Settings(root=model.root / "a", cache_bytes=sum(sizes.values()) + records))
    assert opened
    with pytest.raises(CacheUnusableError):
        opened.make_space(2 * sum(sizes.values()), 0)
    assert {path.name for path in (cache / "blobs").iterdir()} > used, "it would not be enough"
    opened.make_space(sum(size for name, size in sizes.items() if name not in used), 0)
    assert {path.name for path in (cache / "blobs").iterdir()} == used
    packed, _ = await model.fetch("b", is_cached=True)
    assert packed.read_bytes == 0, "what was unpacked is there"


async def test_a_member_that_is_larger_than_the_disk(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "a.tar").write_bytes(header(b"large", b"\x80" + (1 << 50).to_bytes(11, "big")) + bytes(1024))
    source = Packed(tmp_path / "origin")
    with pytest.raises(
        Failure,
        match=r"a\.tar has the member 'large' of 1125899906842624 bytes, and the models volume has \d+ free, of",
    ) as raised:
        await Unpacking(source, tmp_path).run(await source.list_files())
    assert raised.value.reason == Reason.DISK_FULL


async def test_a_file_beside_an_archive_that_has_it_too(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a").write_bytes(b"1")
    (origin / "b.tar").write_bytes(pack_files({"a": b"2"}))
    source = Packed(origin)
    items = (await LocalSource("x", origin, origin).list_files()).items
    with pytest.raises(Failure, match="has 'a' twice") as raised:
        await Unpacking(source, tmp_path).run(Listing(items[:1], Archives(items[1:])))
    assert raised.value.reason == Reason.UNSAFE_PATH


_FULL = """
import asyncio, sys
from pathlib import Path
from conch_agent.reasons import Failure
from conch_agent import unpacking  # the disk is found to be full when it is written to
from tests.unit.test_agent_unpacking import Model
unpacking.Unpacking._reserve = lambda *_: None
model = Model.__new__(Model)
model.root, model.origin = Path(sys.argv[1]), Path(sys.argv[2])
model.claim = model.root / "claim"
model.claim.mkdir()
try:
    asyncio.run(model.fetch("pod", is_cached=sys.argv[3] == "cached"))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("where", ["cached", "pod"])
def test_a_disk_that_becomes_full_while_it_is_unpacked(tmp_path: Path, where: str) -> None:
    origin, disk = tmp_path / "origin", tmp_path / "disk"
    origin.mkdir()
    disk.mkdir()
    (origin / "a.tar.gz").write_bytes(gzip.compress(pack_files({"a": bytes(30 << 20)})))
    fill = 'mount -t tmpfs -o size=36m tmpfs "$1" && head -c 14M /dev/zero > "$1/other"'
    command = f'{fill} && exec "$2" -c "$3" "$1" "$4" "$5"'
    program = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command, "sh"]
    done = subprocess.run(
        [*program, str(disk), sys.executable, _FULL, str(origin), where], capture_output=True, text=True, check=False
    )
    expected = "CacheUnusableError No space left" if where == "cached" else "Failure DiskFull: oci://r.example/m:v1"
    assert done.stdout.startswith(expected), done.stdout + done.stderr
