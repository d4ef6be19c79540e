"""Agents that share a claim are killed at any byte and at any moment: no blob is lost, halved or doubled."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import AsyncGenerator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from conch_agent.cache import open_cache
from conch_agent.fetch import Fetch
from conch_agent.record import compute_digest
from conch_agent.settings import Settings
from conch_agent.sources.base import Buffer, Item
from conch_agent.sources.local import LocalSource

FILES = {"config.pbtxt": 900, "1/a.bin": 700_000, "1/b.bin": 1_300_000, "1/same.bin": 700_000}
_CHUNK = 20_000
# forked, not spawned: an interpreter that starts takes longer than the fetch
_FORK = multiprocessing.get_context("fork")


class Remote(LocalSource):
    """A folder on another machine; the process that reads the given number of bytes of it is killed."""

    def __init__(self, folder: Path, fatal: int) -> None:
        super().__init__("s3://models/m", folder, folder)
        self._left = fatal

    def find_local(self, item: Item) -> Path | None:
        del item
        return None

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        async for chunk in super().read(item, offset):
            for start in range(0, len(chunk), _CHUNK):
                piece = chunk[start : start + _CHUNK]
                if self._left < len(piece):
                    yield piece[: self._left]
                    os.kill(os.getpid(), signal.SIGKILL)
                self._left -= len(piece)
                yield piece


class Claim:
    """A claim and a model."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)  # noqa: S311  no secret
        self.origin, self.claim = root / "origin", root / "claim"
        self.claim.mkdir()
        contents = {name: self.random.randbytes(size) for name, size in FILES.items()}
        contents["1/same.bin"] = contents["1/a.bin"]
        for name, content in contents.items():
            path = self.origin / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        self.blobs, self.digest = set(digests.values()), compute_digest(digests)

    def start(self, pod: str, fatal: int = 1 << 60) -> BaseProcess:
        process = _FORK.Process(target=self._run, args=(pod, fatal), daemon=True)
        process.start()
        return process

    def _run(self, pod: str, fatal: int) -> None:
        asyncio.run(self._fetch(pod, fatal))

    async def _fetch(self, pod: str, fatal: int) -> None:
        root = self.root / pod
        (root / "models").mkdir(parents=True, exist_ok=True)
        if not (root / "cache").exists():
            (root / "cache").symlink_to(self.claim)
        cache = open_cache(Settings(root=root))
        assert cache
        source = Remote(self.origin, fatal)
        fetched = await Fetch(source, cache.folder / "m", cache=cache).run(await source.list_files())
        assert fetched.digest == self.digest
        (root / "done").write_text(str(fetched.files))

    def check(self, pod: str) -> None:
        """A pod has all files, the cache each of them once, and nothing is left over."""
        files = Path((self.root / pod / "done").read_text())
        for name in FILES:
            assert (files / name).read_bytes() == (self.origin / name).read_bytes(), name
        cache = self.claim / ".conch-cache"
        assert {path.name for path in (cache / "blobs").iterdir()} == self.blobs
        for blob in (cache / "blobs").iterdir():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        assert list((cache / "parts").glob("*.part")) == []


def finish(process: BaseProcess) -> None:
    process.join(60)
    assert process.exitcode == 0, process.exitcode


@pytest.mark.parametrize("seed", range(4))
def test_an_agent_that_is_killed_at_50_bytes(tmp_path: Path, seed: int) -> None:
    claim = Claim(tmp_path, seed)
    kills = 0
    while kills < 50:
        process = claim.start(f"pod-{claim.random.randrange(3)}", fatal=claim.random.randrange(120_000))
        process.join(60)
        if process.exitcode == 0:  # all was there: begin again
            for path in claim.claim.rglob("*"):
                if path.is_file() and path.parent.name in {"blobs", "parts"}:
                    path.unlink()
            continue
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    finish(claim.start("last"))
    claim.check("last")


@pytest.mark.parametrize("seed", range(10))
def test_two_agents_of_which_one_or_both_are_killed(tmp_path: Path, seed: int) -> None:
    claim = Claim(tmp_path, seed)
    for _ in range(5):
        processes = [claim.start(pod) for pod in ("a", "b")]
        time.sleep(claim.random.random() * 0.05)
        for process in claim.random.sample(processes, claim.random.randint(1, 2)):
            process.kill()
        for process in processes:
            process.join(60)
            assert process.exitcode in {0, -signal.SIGKILL}
    for pod in ("a", "b"):
        finish(claim.start(pod))
    for pod in ("a", "b"):
        claim.check(pod)


def test_a_part_that_a_killed_agent_has_left_is_deleted_at_the_next_use(tmp_path: Path) -> None:
    """It was killed while it held the lock, and another agent had the file by then."""
    claim = Claim(tmp_path, 0)
    finish(claim.start("a"))
    parts = claim.claim / ".conch-cache" / "parts"
    left = [record.with_suffix(".part") for record in parts.glob("*.json")]
    left[0].touch()
    left[1].write_bytes(b"complete, since another file has this content")
    finish(claim.start("b"))
    claim.check("b")
