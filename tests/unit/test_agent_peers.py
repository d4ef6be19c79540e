"""What a pod keeps for other pods, and what it sends them, at moments that a test with processes meets by chance."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from conch_agent.download import Download, Progress, find_part
from conch_agent.peers import Peers, PeerSource
from conch_agent.peers.addresses import Addresses
from conch_agent.peers.piece import Piece
from conch_agent.peers.places import PlaceIndex
from conch_agent.peers.stored import find_kept, find_pieces, has_piece, read_piece
from conch_agent.record import Record, read_record, write_record
from conch_agent.settings import Settings
from conch_agent.sources import build_key
from conch_agent.sources.az_settings import IDENTITY
from conch_agent.sources.base import Buffer, Item, Listing
from conch_agent.sources.local import LocalSource
from conch_agent.sources.ranged_reads import RANGE
from conch_contract import ModelSource
from tests.support.azure import CLIENT, TENANT

SIZE = 2 * RANGE


class Ranged(LocalSource):
    """A folder that is read in ranges, as an object store.

    `reads` counts them, `has_read` is set by the first one, and they wait while `flows` is cleared.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("s3://models/m", folder, folder)
        self.reads = 0
        self.has_read = asyncio.Event()
        self.flows = asyncio.Event()
        self.flows.set()

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[None, None]:
        yield

    def find_local(self, item: Item) -> Path | None:
        del item
        return None

    async def read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        self.reads += 1
        self.has_read.set()
        await self.flows.wait()
        left = end - start
        async with aclosing(self.read(item, start)) as blocks:
            async for block in blocks:
                yield memoryview(block)[:left]
                left -= len(block)
                if left <= 0:
                    return


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "downloads" / "m"
    for name in ("files", "parts"):
        (folder / name).mkdir(parents=True)
    return folder


async def share(root: Path, source: Ranged, progress: Progress) -> tuple[Any, Listing]:
    """Return a context with the source through which a pod with the address of another one fetches, and its files."""
    (root / "storage").mkdir(exist_ok=True)
    (root / "storage" / "AWS_ACCESS_KEY_ID").write_text("x")
    listing = await source.list_files()
    peers = Peers(Settings(root=root, peers=("127.0.0.1:9",)), list)
    place = ModelSource(name="m", format="onnx", storage_uri=source.uri)
    return peers.share(source, place, listing, progress), listing


def build_piece(shared: PeerSource, listing: Listing) -> Piece:
    return Piece(shared.key, "weights", listing.items[0].mark, SIZE, 0)


async def test_a_fetch_begins_without_the_pieces_that_a_killed_agent_has_kept(
    tmp_path: Path, origin: Path, folder: Path
) -> None:
    """The model may need their space."""
    find_pieces(folder).mkdir()
    (find_pieces(folder) / "old").write_bytes(bytes(RANGE))
    context, _ = await share(tmp_path, Ranged(origin), Progress())
    async with context:
        assert not find_pieces(folder).exists()


async def test_no_piece_is_kept_where_the_model_needs_the_space(tmp_path: Path, origin: Path, folder: Path) -> None:
    source, progress = Ranged(origin), Progress(total=2**60)
    context, listing = await share(tmp_path, source, progress)
    async with context as shared, shared.connect():
        with pytest.raises(OSError, match="No space left"):
            await shared.keep(build_piece(shared, listing))
        assert source.reads == 0
        assert b"".join([bytes(each) async for each in shared.read(listing.items[0], 0)]) == _read(origin)
        assert not find_pieces(folder).exists()


async def test_no_piece_is_kept_after_the_fetch(tmp_path: Path, origin: Path, folder: Path) -> None:
    """Other pods go on to request pieces while those that were kept are deleted."""
    source = Ranged(origin)
    context, listing = await share(tmp_path, source, Progress())
    async with context as shared:
        piece = build_piece(shared, listing)
        async with shared.connect():
            source.flows.clear()
            began = asyncio.create_task(shared.keep(piece))
            await source.has_read.wait()
        await began
        source.flows.set()
        await shared.keep(piece)
    assert source.reads == 1
    assert not find_pieces(folder).exists()


async def test_a_piece_that_could_not_be_kept_is_read_again(tmp_path: Path, origin: Path, folder: Path) -> None:
    source = Ranged(origin)
    context, listing = await share(tmp_path, source, Progress())
    async with context as shared, shared.connect():
        piece = build_piece(shared, listing)
        find_pieces(folder).write_bytes(b"")  # a file in the place of the folder
        results = await asyncio.gather(*(shared.keep(piece) for _ in range(3)), return_exceptions=True)
        assert [isinstance(each, OSError) for each in results] == [True] * 3
        find_pieces(folder).unlink()
        await asyncio.gather(*(shared.keep(piece) for _ in range(3)))
        assert source.reads == 2, "once in vain, and once for all"
        assert find_kept(folder, piece).read_bytes() == _read(origin)[:RANGE]


def _read(origin: Path) -> bytes:
    return (origin / "weights").read_bytes()


def put(folder: Path, mark: str, content: bytes, *, in_part: bool) -> None:
    """Put a complete file as a download leaves it, in its part or beyond."""
    part = find_part(folder, PurePosixPath("weights"))
    (part.file if in_part else folder / "files" / "weights").write_bytes(content)
    write_record(part.record, Record(mark, SIZE, SIZE, "", done=True))


@pytest.mark.usefixtures("folder")
async def test_many_pods_that_cannot_be_reached_are_not_all_waited_for(tmp_path: Path) -> None:
    """As behind a network policy that drops packets. Each connection costs a second, and each piece eleven of them."""
    origin = tmp_path / "large"
    origin.mkdir()
    (origin / "weights").touch()
    os.truncate(origin / "weights", 12 * RANGE)
    source = Ranged(origin)
    listing = await source.list_files()
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "AWS_ACCESS_KEY_ID").write_text("x")
    with ExitStack() as stack:
        others = [stack.enter_context(fill_backlog()) for _ in range(60)]
        peers = Peers(Settings(root=tmp_path, peers=("127.0.0.1", *others)), list)
        place = ModelSource(name="m", format="onnx", storage_uri=source.uri)
        async with peers.share(source, place, listing, Progress()) as shared:
            assert isinstance(shared, PeerSource)
            async with shared.connect():
                size = sum([len(block) async for block in shared.read(listing.items[0], 0)])
    assert size == 12 * RANGE
    assert source.reads == 12
    assert 0 < len(shared._paused) < 30, "the pods that were requested"


@contextmanager
def fill_backlog() -> Iterator[str]:
    """Yield an address to which no connection is complete: its queue is full, so that the kernel drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)  # noqa: FBT003  the socket's own
            client.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_complete_part_is_read_while_the_file_is_the_old_one(folder: Path) -> None:
    """The record is written before the part takes the place of a file of the same path."""
    piece = Piece("key", "weights", "new", SIZE, RANGE)
    put(folder, "old", b"o" * SIZE, in_part=False)
    put(folder, "new", b"n" * SIZE, in_part=True)
    assert read_piece([folder], piece) == b"n" * RANGE


async def test_the_record_of_other_bytes_is_deleted_before_a_part_has_new_ones(folder: Path, origin: Path) -> None:
    source = Ranged(origin)
    [item] = (await source.list_files()).items
    put(folder, "old", b"o" * SIZE, in_part=True)
    part = find_part(folder, item.path)
    source.flows.clear()
    records = []

    class Held(Ranged):
        async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
            records.append(read_record(part.record))
            async for block in super().read(item, offset):
                yield block

    await Download(Held(origin), Progress()).run(item, part)
    assert records == [None]


def test_a_model_without_the_file_does_not_hide_it_from_another_with_its_uri(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "models" / "downloads" / "other"
    piece = Piece("key", "weights", "mark", SIZE, RANGE)
    put(folder, "mark", b"m" * SIZE, in_part=False)
    assert read_piece([other], piece) is None
    assert has_piece([other, folder], piece)
    assert read_piece([other, folder], piece) == b"m" * RANGE


@pytest.mark.usefixtures("folder")
async def test_an_answer_of_dns_that_is_late_holds_no_fetch(
    tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    resolve = socket.getaddrinfo

    def wait(*arguments: Any, **options: Any) -> Any:
        answers.wait()
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    try:
        async with asyncio.timeout(60):
            assert await Addresses(["127.0.0.1:9"], 8090).list() == ()
            context, listing = await share(tmp_path, Ranged(origin), Progress())
            async with context as shared, shared.connect():
                assert b"".join([bytes(each) async for each in shared.read(listing.items[0], 0)]) == _read(origin)
    finally:
        answers.set()


async def test_addresses_of_both_families_are_known() -> None:
    addresses = await Addresses(["[::1]:9", "127.0.0.1:8090"], 8090).list()
    assert [(each.text, each.is_own) for each in addresses] == [("[::1]:9", False), ("127.0.0.1:8090", True)]


@pytest.mark.parametrize(
    ("uri", "secret", "is_sent"),
    [
        ("s3://models/m", {}, False),
        ("s3://models/m", {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, True),
        ("s3://models/m", {"AWS_SKIP_SIGNATURE": "true"}, True),
        ("s3://models/m", {"AWS_ENDPOINT_URL": "https://store.example"}, True),
        ("az://account/models/m", {}, False),
        ("az://account/models/m", {"AZURE_SKIP_SIGNATURE": "true"}, True),
        ("az://account/models/m", {"AZURE_STORAGE_ENDPOINT": "https://store.example"}, True),
        ("gs://models/m", {}, True),
    ],
)
def test_what_a_pod_reads_as_itself_is_not_sent(
    uri: str, secret: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_sent: bool
) -> None:
    """Another pod may not read it, and a request has no key that shows whether it may."""
    model = ModelSource(name="m", format="onnx", storage_uri=uri)
    settings, folder = Settings(root=tmp_path), tmp_path / "storage"
    folder.mkdir()
    for name, value in secret.items():
        (folder / name).write_text(value)
    key = build_key(uri, settings) if secret else build_key(uri, Settings(root=tmp_path / "other"))
    if not secret:
        folder.rmdir()
    assert PlaceIndex(settings).find_models([model], key)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/models")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")
    for name, value in zip(IDENTITY, (TENANT, CLIENT, "/token"), strict=True):
        monkeypatch.setenv(name, value)
    assert bool(PlaceIndex(settings).find_models([model], key)) is is_sent
    assert bool(PlaceIndex(settings).read_keys(model)) is is_sent
