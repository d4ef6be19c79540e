"""What a pod sends to the other pods of its service: pieces of the files that it has, and of those that it fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import structlog

from conch_agent.download import Progress, find_part
from conch_agent.peers.addresses import Addresses, format_address
from conch_agent.peers.piece import (
    MAC_HEADER,
    NONCE_HEADER,
    Piece,
    PlaceKeys,
    derive_key,
    is_equal,
    sign_content,
    sign_request,
)
from conch_agent.peers.source import PeerSource
from conch_agent.reasons import Failure
from conch_agent.record import read_record
from conch_agent.settings import Settings
from conch_agent.sources import build_key, read_values
from conch_agent.sources.base import Listing, RangedSource, Source, parse_path
from conch_agent.threads import run_in_thread
from conch_contract.manifest import ModelSource

_AT_ONCE: Final = 4  # pieces, whose bytes are in memory; it bounds what others take of this pod's network
_MOST_WAITING: Final = 256  # requests
_START_SECONDS: Final = 5.0  # in which a pod that starts with others begins to fetch, as they have
_STALL_SECONDS: Final = 20.0  # in which a pod has to take a block
_BLOCK: Final = 1024 * 1024  # bytes


class Peers:
    """The pods of a service, which send each other the files that they fetch."""

    def __init__(self, settings: Settings, list_models: Callable[[], Iterable[ModelSource]]) -> None:
        """Create the peers.

        Args:
            settings: The agent's settings.
            list_models: Returns the models of this pod.
        """
        self._settings = settings
        self._list_models = list_models
        self._addresses = Addresses(settings.peers, settings.port)
        self._sources: dict[str, PeerSource] = {}  # those that are fetched now, by key
        self._ended: set[str] = set()  # keys of those that were fetched
        self._change = asyncio.Condition()  # of both
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0  # requests
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def share(
        self, source: Source, place: ModelSource, listing: Listing, progress: Progress
    ) -> AsyncGenerator[Source, None]:
        """Yield the source through which this pod fetches, and read it for other pods while the block is active.

        Args:
            source: The source.
            place: The model at the place of the source.
            listing: Its files.
            progress: Counts the bytes from the source, and those from other pods.

        Raises:
            Failure: SecretMissing or InvalidSecret.
        """
        if not (self._settings.peers and isinstance(source, RangedSource)):
            yield source
            return
        keys = await run_in_thread(self._read_keys, place)
        folder = self._settings.downloads / place.name / "pieces"
        shared = PeerSource(source, listing, keys, folder, addresses=self._addresses, progress=progress)
        await self._set_source(keys.source, shared)
        try:
            yield shared
        finally:
            if self._sources.get(keys.source) is shared:
                await self._set_source(keys.source, None)

    async def _set_source(self, key: str, source: PeerSource | None) -> None:
        async with self._change:
            if source:
                self._sources[key] = source
            else:
                del self._sources[key]
                self._ended.add(key)
            self._change.notify_all()

    def _read_keys(self, place: ModelSource) -> PlaceKeys:
        uri, secret = place.storage_uri, place.secret
        return PlaceKeys(build_key(uri, self._settings, secret), derive_key(read_values(uri, self._settings, secret)))

    async def answer(self, target: str, headers: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        """Answer a request for a piece.

        Args:
            target: The target of the request.
            headers: Its headers by name in lower case.
            writer: The connection.

        Raises:
            OSError: The connection is lost.
            TimeoutError: The other pod does not take the answer.
        """
        piece = Piece.parse(target)
        found = await run_in_thread(self._find_place, piece.source) if piece else None
        if piece is None or found is None:
            await _send(writer, HTTPStatus.NOT_FOUND if piece else HTTPStatus.BAD_REQUEST)
            return
        name, key = found
        nonce, mac, own = headers.get(NONCE_HEADER, ""), headers.get(MAC_HEADER, ""), await self._list_own(writer)
        if not any(is_equal(mac, sign_request(key, piece, address, nonce)) for address in own):
            await _send(writer, HTTPStatus.FORBIDDEN)
        elif self._waiting >= _MOST_WAITING:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._waiting += 1
            try:
                await self._answer(piece, name, key, nonce, writer, may_read="cache-control" not in headers)
            finally:
                self._waiting -= 1

    async def _answer(
        self, piece: Piece, name: str, key: bytes, nonce: str, writer: asyncio.StreamWriter, *, may_read: bool
    ) -> None:
        """Send a piece. A slot is taken only when the bytes are here: pods that wait for each other would hold all."""
        folder = self._settings.downloads / name
        if may_read and not await run_in_thread(_has_piece, folder, piece):
            await self._keep(piece)
        source = self._sources.get(piece.source)
        kept = source.find_kept(piece) if source else None
        async with self._slots:
            content = await run_in_thread(_read_piece, folder, piece, kept)
            if content is None:
                await _send(writer, HTTPStatus.GATEWAY_TIMEOUT)  # RFC 9111, section 5.2.1.7
            else:
                await _send(writer, HTTPStatus.OK, content, await run_in_thread(sign_content, key, nonce, content))

    async def _keep(self, piece: Piece) -> None:
        """Read a piece for other pods, if this pod fetches its file, or is about to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS), self._change:
                await self._change.wait_for(lambda: piece.source in self._sources or piece.source in self._ended)
        if source := self._sources.get(piece.source):
            try:
                await source.keep(piece)
            except (Failure, OSError) as error:
                self._log.warning("a piece is not read for another pod", path=piece.path, detail=str(error))

    def _find_place(self, key: str) -> tuple[str, bytes] | None:
        """Return the model that has a place of this key, and the key of the pods with its Secret."""
        for model in self._list_models():
            for place in model.places:
                with suppress(Failure):
                    if (keys := self._read_keys(place)).source == key:
                        return model.name, keys.secret
        return None

    async def _list_own(self, writer: asyncio.StreamWriter) -> list[str]:
        """Return the addresses of this pod: behind the proxy of a mesh that of the connection is another."""
        host, port = writer.get_extra_info("sockname")[:2]
        return [format_address(host, port), *(each.text for each in await self._addresses.list() if each.is_own)]


async def _send(writer: asyncio.StreamWriter, status: HTTPStatus, *parts: bytes) -> None:
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: {sum(map(len, parts))}\r\nConnection: close\r\n\r\n"
    for part in (head.encode(), *parts):
        for start in range(0, len(part), _BLOCK):
            async with asyncio.timeout(_STALL_SECONDS):
                writer.write(part[start : start + _BLOCK])
                await writer.drain()


def _has_piece(folder: Path, piece: Piece) -> bool:
    return any(True for _ in _find_files(folder, piece))


def _read_piece(folder: Path, piece: Piece, kept: Path | None) -> bytes | None:
    """Return a piece of a file that is there, as far as the piece at least; None: it is not.

    Args:
        folder: The download folder of the model.
        piece: The piece.
        kept: The file with this piece alone; None: it has not been read for others.
    """
    places = [*((file, piece.start) for file in _find_files(folder, piece)), *([(kept, 0)] if kept else [])]
    for file, start in places:
        with suppress(OSError), file.open("rb", buffering=0) as stream:
            stream.seek(start)
            content = stream.read(piece.end - piece.start)
            if len(content) == piece.end - piece.start:
                return content
    return None


def _find_files(folder: Path, piece: Piece) -> Iterator[Path]:
    """Yield the files that have the bytes of a piece, according to the record of the file's content."""
    try:
        path = parse_path(piece.path, "")
    except Failure:
        return
    part = find_part(folder, path)
    record = read_record(part.record)
    if record and (record.tag, record.size) == (piece.mark, piece.size):
        if record.done:
            yield folder / "files" / path
        if record.offset >= piece.end:
            yield part.file
