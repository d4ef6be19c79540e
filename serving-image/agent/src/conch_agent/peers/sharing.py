"""What a pod sends to the other pods of its service: pieces of the files that it has, and of those that it fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final

import structlog

from conch_agent.download import Progress
from conch_agent.peers.addresses import Addresses, format_address
from conch_agent.peers.piece import (
    BLOCK,
    MAC_HEADER,
    NONCE_HEADER,
    STALL_SECONDS,
    Piece,
    is_equal,
    sign_content,
    sign_request,
)
from conch_agent.peers.places import PlaceIndex
from conch_agent.peers.source import PeerSource
from conch_agent.peers.stored import has_piece, read_piece
from conch_agent.reasons import Failure
from conch_agent.settings import Settings
from conch_agent.sources.base import Listing, RangedSource, Source
from conch_agent.threads import run_in_thread
from conch_contract.manifest import ModelSource

_AT_ONCE: Final = 4  # pieces, whose bytes are in memory; it bounds what others take of this pod's network
_MOST_WAITING: Final = 256  # requests
_START_SECONDS: Final = 5.0  # after the first request for a place, in which a pod that starts as well begins to fetch


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
        self._places = PlaceIndex(settings)
        self._sources: dict[str, PeerSource] = {}  # those that are fetched now, by model
        self._change = asyncio.Condition()  # of these
        self._starts_until: dict[str, float] = {}  # until when requests wait for the fetch of a place, by its key
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
        keys = await run_in_thread(self._places.read_keys, place) if isinstance(source, RangedSource) else None
        if not isinstance(source, RangedSource) or keys is None:
            yield source
            return
        folder = self._settings.downloads / place.name
        shared = PeerSource(source, listing, keys, folder, addresses=self._addresses, progress=progress)
        await shared.delete_pieces()  # those that an agent has kept that was killed: the model may need their space
        async with self._change:
            self._sources[place.name] = shared
            self._change.notify_all()
        try:
            yield shared
        finally:
            self._starts_until[keys.source] = 0.0
            if self._sources.get(place.name) is shared:
                del self._sources[place.name]

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
        piece, models = Piece.parse(target), list(self._list_models())
        found = await run_in_thread(self._places.find_models, models, piece.source) if piece else {}
        if piece is None or not found:
            await _send(writer, HTTPStatus.NOT_FOUND if piece else HTTPStatus.BAD_REQUEST)
            return
        key = await self._find_key(found, piece, headers, writer)
        if key is None:
            await _send(writer, HTTPStatus.FORBIDDEN)
        elif self._waiting >= _MOST_WAITING:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._waiting += 1
            try:
                await self._wait(piece, found[key], only_if_cached="cache-control" in headers)
                await self._answer(piece, found[key], key, headers[NONCE_HEADER], writer)
            finally:
                self._waiting -= 1

    async def _find_key(
        self, keys: Iterable[bytes], piece: Piece, headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Return the key with which a request was signed; None: it has the MAC of none.

        Behind the proxy of a mesh the address of the connection is not that of the request.
        """
        nonce, mac = headers.get(NONCE_HEADER, ""), headers.get(MAC_HEADER, "")
        own = [each.text for each in await self._addresses.list() if each.is_own]
        own.append(format_address(*writer.get_extra_info("sockname")[:2]))
        signed = ((key, sign_request(key, piece, address, nonce)) for key in keys for address in own)
        return next((key for key, each in signed if nonce and is_equal(mac, each)), None)

    async def _answer(
        self, piece: Piece, models: Sequence[str], key: bytes, nonce: str, writer: asyncio.StreamWriter
    ) -> None:
        """Send a piece. A slot is taken only when the bytes are here: pods that wait for each other would hold all."""
        folders = [self._settings.downloads / name for name in models]
        content = None
        if await run_in_thread(has_piece, folders, piece):
            async with self._slots:
                if content := await run_in_thread(read_piece, folders, piece):
                    await _send(writer, HTTPStatus.OK, content, await run_in_thread(sign_content, key, nonce, content))
        if content is None:
            await _send(writer, HTTPStatus.GATEWAY_TIMEOUT)  # RFC 9111, section 5.2.1.7

    async def _wait(self, piece: Piece, models: Sequence[str], *, only_if_cached: bool) -> None:
        """Wait until a piece is here, if this pod reads it now; read it, if it may be read for other pods."""
        if await run_in_thread(has_piece, [self._settings.downloads / name for name in models], piece):
            return
        if only_if_cached:
            for source in self._find_sources(piece, models):
                await source.wait_for_store(piece)
            return
        await self._fetch(piece, models)

    async def _fetch(self, piece: Piece, models: Sequence[str]) -> None:
        """Read a piece for other pods, if this pod fetches its file, or is about to."""
        due = asyncio.get_running_loop().time() + _START_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._starts_until.setdefault(piece.source, due)), self._change:
                await self._change.wait_for(lambda: self._find_sources(piece, models))
        for source in self._find_sources(piece, models)[:1]:
            try:
                await source.keep(piece)
            except (Failure, OSError) as error:
                self._log.info("a piece is not read for another pod", path=piece.path, detail=str(error))

    def _find_sources(self, piece: Piece, models: Sequence[str]) -> list[PeerSource]:
        """Return the sources of a piece's place that are fetched now."""
        sources = (self._sources.get(name) for name in models)
        return [source for source in sources if source and source.key == piece.source]


async def _send(writer: asyncio.StreamWriter, status: HTTPStatus, *parts: bytes) -> None:
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: {sum(map(len, parts))}\r\nConnection: close\r\n\r\n"
    for part in (head.encode(), *parts):
        for start in range(0, len(part), BLOCK):
            async with asyncio.timeout(STALL_SECONDS):
                writer.write(part[start : start + BLOCK])
                await writer.drain()
