"""Files arrive whole, hashed and in their folder, whatever was on the disk before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath

import pytest

from conch_agent.fetch import Fetch, FetchResult
from conch_agent.reasons import Failure, Reason
from conch_agent.record import compute_digest
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Buffer, Item, Listing, parse_path
from conch_agent.sources.local import LocalSource


class Copied(LocalSource):
    """A folder on another file system: nothing can be linked. `read_from` has where each file was read from."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"file://{folder}", folder, folder)
        self.read_from: dict[str, int] = {}

    def find_local(self, item: Item) -> Path | None:
        del item
        return None

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        self.read_from[str(item.path)] = offset
        async for chunk in super().read(item, offset):
            yield chunk


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("")
    (folder / "1" / "weights").write_bytes(os.urandom(9_000_000))
    return folder


async def _run(source: LocalSource, folder: Path) -> FetchResult:
    return await Fetch(source, folder).run(await source.list_files())


def _digest(origin: Path) -> str:
    files = [path for path in origin.rglob("*") if path.is_file()]
    return compute_digest(
        {path.relative_to(origin).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


async def test_files_are_copied_and_hashed(origin: Path, tmp_path: Path) -> None:
    fetched = await _run(Copied(origin), tmp_path / "to")
    assert fetched.digest == _digest(origin)
    assert (fetched.files / "1" / "weights").read_bytes() == (origin / "1" / "weights").read_bytes()


async def test_local_files_are_linked(origin: Path, tmp_path: Path) -> None:
    fetched = await _run(LocalSource("file:///x", origin, origin), tmp_path / "to")
    assert fetched.digest == _digest(origin)
    assert (fetched.files / "1" / "weights").samefile(origin / "1" / "weights")


async def test_a_second_run_reads_nothing(origin: Path, tmp_path: Path) -> None:
    await _run(Copied(origin), tmp_path / "to")
    again = Copied(origin)
    assert (await _run(again, tmp_path / "to")).digest == _digest(origin)
    assert again.read_from == {}


@pytest.mark.parametrize("damage", ["flipped", "shorter"])
async def test_a_file_that_was_damaged_on_disk_is_fetched_again(origin: Path, tmp_path: Path, damage: str) -> None:
    fetched = await _run(Copied(origin), tmp_path / "to")
    weights = fetched.files / "1" / "weights"
    content = bytearray(weights.read_bytes())
    content[5] ^= 1
    weights.write_bytes(content if damage == "flipped" else content[:100])
    again = Copied(origin)
    assert (await _run(again, tmp_path / "to")).digest == _digest(origin)
    assert again.read_from == {"1/weights": 0}


@pytest.mark.parametrize(
    ("change", "start"), [("none", 4_194_304), ("tag", 0), ("bytes", 0), ("longer", 4_194_304), ("no record", 0)]
)
async def test_a_part_goes_on_only_where_it_can_be_trusted(
    origin: Path, tmp_path: Path, change: str, start: int
) -> None:
    source = Copied(origin)
    item = next(item for item in (await source.list_files()).items if item.path.name == "weights")
    stem = hashlib.sha256(b"1/weights").hexdigest()[:32]
    parts = tmp_path / "to" / "parts"
    parts.mkdir(parents=True)
    content = (origin / "1" / "weights").read_bytes()
    part = bytearray(content[:4_194_304])
    record = {
        "tag": "another" if change == "tag" else item.tag,
        "size": item.size,
        "offset": 4_194_304,
        "sha256": hashlib.sha256(part).hexdigest(),
    }
    if change == "bytes":
        part[0] ^= 1
    if change == "longer":
        part += b"written after the record"
    (parts / f"{stem}.part").write_bytes(part)
    if change != "no record":
        (parts / f"{stem}.json").write_text(json.dumps(record))
    assert (await _run(source, tmp_path / "to")).digest == _digest(origin)
    assert source.read_from["1/weights"] == start


async def test_a_file_that_the_source_no_longer_has_is_removed(origin: Path, tmp_path: Path) -> None:
    await _run(Copied(origin), tmp_path / "to")
    (origin / "config.pbtxt").unlink()
    fetched = await _run(Copied(origin), tmp_path / "to")
    assert not (fetched.files / "config.pbtxt").exists()
    assert fetched.digest == _digest(origin)


async def test_a_file_that_changes_while_it_is_read_is_refused(origin: Path, tmp_path: Path) -> None:
    source = Copied(origin)
    listing = await source.list_files()
    (origin / "1" / "weights").write_bytes(b"another")
    with pytest.raises(Failure) as raised:
        await Fetch(source, tmp_path / "to").run(listing)
    assert raised.value.reason == Reason.CHANGED


async def test_more_than_the_disk_holds_is_refused_before_it_begins(origin: Path, tmp_path: Path) -> None:
    source = Copied(origin)
    huge = Listing((Item(PurePosixPath("weights"), 1 << 60, "t", str(origin / "1" / "weights")),))
    with pytest.raises(Failure) as raised:
        await Fetch(source, tmp_path / "to").run(huge)
    assert raised.value.reason == Reason.DISK_FULL
    expected = (
        r"file://\S+ needs 1152921504606846976 more bytes, and the models volume has \d+ free, of which the agent"
    )
    assert re.match(expected, raised.value.message)
    assert source.read_from == {}


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../b", "a/./b", "", "a\\b", "a\nb", "a\0b", "x" * 2000])
def test_unsafe_names(name: str) -> None:
    with pytest.raises(Failure) as raised:
        parse_path(name, "s3://b/m")
    assert raised.value.reason == Reason.UNSAFE_PATH


async def test_links_stay_inside(origin: Path, tmp_path: Path) -> None:
    (origin / "inside").symlink_to("1/weights")
    source = LocalSource("file:///x", origin, origin)
    assert "inside" in {str(item.path) for item in (await source.list_files()).items}
    (tmp_path / "secret").write_text("s")
    for target in ("../secret", str(tmp_path), "/etc/passwd", "nothing", "1"):
        (origin / "link").unlink(missing_ok=True)
        (origin / "link").symlink_to(target)
        with pytest.raises(Failure):
            await source.list_files()


async def test_a_path_that_is_no_regular_file_is_refused(origin: Path) -> None:
    os.mkfifo(origin / "pipe")
    with pytest.raises(Failure) as raised:
        await LocalSource("file:///x", origin, origin).list_files()
    assert raised.value.reason == Reason.UNSAFE_PATH


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("gcs://b/m", Reason.UNSUPPORTED), ("https://h/m.zip", Reason.UNSUPPORTED), ("s3:///m", Reason.NOT_FOUND)],
)
def test_uris_that_are_refused(uri: str, reason: Reason, tmp_path: Path) -> None:
    with pytest.raises(Failure) as raised:
        open_source(uri, Settings(root=tmp_path))
    assert raised.value.reason == reason


async def test_a_folder_that_becomes_a_file_of_its_name_is_fetched(origin: Path, tmp_path: Path) -> None:
    await _run(Copied(origin), tmp_path / "to")
    (origin / "1" / "weights").unlink()
    (origin / "1").rmdir()
    (origin / "1").write_bytes(b"now a file")
    fetched = await _run(Copied(origin), tmp_path / "to")
    assert (fetched.files / "1").read_bytes() == b"now a file"


_SHORT_WRITES = """
import asyncio, resource, sys
from pathlib import Path
from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure
from conch_agent.sources.local import LocalSource

class Remote(LocalSource):
    def find_local(self, item):
        return None

async def run(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    origin = Path(sys.argv[1])
    source = Remote("s3://models/m", origin, origin)
    listing = await source.list_files()
    try:
        await Fetch(source, Path(sys.argv[2])).run(listing)
    except Failure as failure:
        print(failure)

asyncio.run(run(int(sys.argv[3])))
"""


@pytest.mark.parametrize("part", range(1, 21))
async def test_a_file_whose_last_bytes_have_no_place_is_never_complete(origin: Path, tmp_path: Path, part: int) -> None:
    """A disk that becomes full takes the first bytes of a write, and reports only the next write as an error."""
    limit = 9_000_000 * part // 21 + part
    program = [sys.executable, "-c", _SHORT_WRITES, str(origin), str(tmp_path / "to"), str(limit)]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"File too large" in output
    assert not (tmp_path / "to" / "files" / "1" / "weights").exists()
    source = Copied(origin)
    assert (await _run(source, tmp_path / "to")).digest == _digest(origin)
