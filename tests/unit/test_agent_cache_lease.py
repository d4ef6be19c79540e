"""The lease of a pod on its folder in the cache: what a running pod uses stays, however clocks are set."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conch_agent.cache import CacheUnusableError, keep_lease, lease
from tests.unit.test_agent_cache import Counted, Pods, fetch
from tests.unit.test_agent_cache_faults import write_origin

HOUR = 3600.0


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


def is_locked(folder: Path) -> bool:
    try:
        handle = os.open(folder / ".lease", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


async def until_locked(folder: Path) -> None:
    async with asyncio.timeout(10):
        while not is_locked(folder):  # noqa: ASYNC110  what another task does to a file
            await asyncio.sleep(0.01)


@asynccontextmanager
async def agent(pods: Pods, name: str) -> AsyncGenerator[Path, None]:
    """Have the agent of a pod run, which has a folder in the cache; yield the folder."""
    folder = pods.open(name).folder
    task = asyncio.create_task(keep_lease(pods.settings(name)))
    await until_locked(folder)
    yield folder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def set_clock(folder: Path, step: float) -> None:
    """Set the clock of the file system by some seconds, as seen from the last renewal of a lease."""
    renewed = time.time() - step
    os.utime(folder, (renewed, renewed))


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_clock_that_is_set_takes_nothing_from_a_running_pod(pods: Pods, tmp_path: Path, step: float) -> None:
    """The next pod needs space at that moment."""
    used, new = (Counted(write_origin(tmp_path / name, weights=3_000_000)) for name in ("used", "new"))
    async with agent(pods, "a") as folder:
        fetched = await fetch(pods.open("a"), used)
        set_clock(folder, step)
        with pytest.raises(
            CacheUnusableError, match=r"3000000 more bytes are needed, and 1000[0-9]{3} of them do not fit"
        ):
            await fetch(pods.open("b", cache_bytes=5_000_000), new)
        assert (fetched.files / "weights").read_bytes() == (tmp_path / "used" / "weights").read_bytes()
        assert [path.stat().st_size for path in pods.paths("blobs")] == [3_000_000]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_what_a_pod_has_used_is_deleted_after_its_lease(pods: Pods, tmp_path: Path, step: float) -> None:
    """Also if the clock was ahead when the pod renewed it last."""
    used, new = (Counted(write_origin(tmp_path / name, weights=3_000_000)) for name in ("used", "new"))
    async with agent(pods, "a") as folder:
        await fetch(pods.open("a"), used)
    set_clock(folder, step)
    result = await fetch(pods.open("b", cache_bytes=5_000_000), new)
    assert {path.name for path in pods.paths("blobs")} == set(result.sha256.values())
    assert not folder.exists()


async def test_an_agent_that_starts_again_has_its_lease_for_a_while(pods: Pods, tmp_path: Path) -> None:
    async with agent(pods, "a") as folder:
        await fetch(pods.open("a"), Counted(write_origin(tmp_path / "used", weights=1_000)))
    set_clock(folder, 600)
    pods.open("b")
    assert (folder / "m" / "files" / "weights").exists()
    async with agent(pods, "a"):
        set_clock(folder, HOUR)
        pods.open("b")
        assert (folder / "m" / "files" / "weights").exists()


async def test_a_lease_that_was_lost_is_noticed_though_a_fetch_has_made_the_folder_again(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    folder = pods.open("a").folder
    task = asyncio.create_task(keep_lease(pods.settings("a")))
    await until_locked(folder)
    assert not task.done()
    shutil.rmtree(folder)
    pods.open("a")
    await asyncio.wait_for(task, 2)
