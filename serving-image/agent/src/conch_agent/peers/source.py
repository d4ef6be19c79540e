"""A source of which the pods of one service read each piece once, and send it to each other."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from conch_agent.disk import RESERVE
from conch_agent.download import Progress
from conch_agent.folders import delete_tree
from conch_agent.peers.addresses import Address, Addresses, rank
from conch_agent.peers.client import PeerError, request_piece
from conch_agent.peers.piece import Piece, PlaceKeys
from conch_agent.peers.stored import find_kept, find_pieces
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Item, Listing, RangedSource
from conch_agent.sources.ranged_reads import RANGE, RangedReads
from conch_agent.threads import run_in_thread

SMALLEST: Final = 1024 * 1024  # bytes of a file; a smaller one costs a store no more than a pod
_MOST_PODS: Final = 3  # that are requested to read a piece
_MOST_CACHES: Final = 8  # pods that are requested for a piece that they may have: the answer takes a round trip
_PAUSE: Final = 1.0  # seconds, in which a pod may start, or read its manifest
_WAIT_PAUSE: Final = 10.0  # seconds, for each second of a wait in vain: no pod costs more than a tenth of the time
_LONG_WAIT: Final = 0.5  # seconds
_MOST_WAITS: Final = 3  # long ones in vain in a row: then all pods that have not answered are left out, as one is
_AT_ONCE: Final = 4  # pieces that this pod reads, and that it keeps for others: their bytes are in memory


class PeerSource:
    """A source behind the pods of a service. The first one of a piece's ranking reads it from the store."""

    def __init__(
        self,
        source: RangedSource,
        listing: Listing,
        keys: PlaceKeys,
        folder: Path,
        *,
        addresses: Addresses,
        progress: Progress,
    ) -> None:
        """Create the source.

        Args:
            source: The source.
            listing: Its files.
            keys: What pods have in common for it.
            folder: The download folder of the model.
            addresses: The addresses of the pods.
            progress: Counts the bytes from the source, and those from other pods.
        """
        self.uri, self.key = source.uri, keys.source
        self._source = source
        self._keys = keys
        self._folder = folder
        self._addresses = addresses
        self._progress = progress
        self._reads = RangedReads(self._read_range, _AT_ONCE)
        self._items = {(str(item.path), item.mark, item.size): item for item in listing.items}
        self._paused: dict[Address, float] = {}  # until when an address is left out
        self._answered = set[Address]()  # pods whose last answer has come
        self._waits = 0  # long ones in vain since the last answer
        self._silent_until = 0.0  # until when pods that have not answered are left out
        self._caches = set[Address]()  # pods that had a piece already: those that are ready have all
        self._kept: dict[Piece, asyncio.Task[None]] = {}
        self._from_store: set[Piece] = set()  # those of the kept that the store sends now
        self._keeps = asyncio.Semaphore(_AT_ONCE)
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[None, None]:
        """Keep a connection to the store, and pieces for other pods, as in ConnectedSource."""
        async with self._source.connect():
            try:
                yield
            finally:
                self._items.clear()  # meanwhile other pods go on to request pieces
                for task in self._kept.values():
                    task.cancel()
                await asyncio.gather(*self._kept.values(), return_exceptions=True)
                await self.delete_pieces()

    async def delete_pieces(self) -> None:
        """Delete the pieces that are kept for other pods."""
        await run_in_thread(delete_tree, find_pieces(self._folder))

    async def list_files(self) -> Listing:
        """Return the files, as in Source."""
        return await self._source.list_files()

    def find_local(self, item: Item) -> Path | None:
        """Return the path of a local file, as in Source."""
        return self._source.find_local(item)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of a file in order, as in Source."""
        is_shared = item.mark and (item.size or 0) >= SMALLEST
        async with aclosing((self._reads if is_shared else self._source).read(item, offset)) as blocks:
            async for block in blocks:
                self._progress.downloaded += 0 if is_shared else len(block)
                yield block

    async def keep(self, piece: Piece) -> None:
        """Read a piece and keep it for other pods, if it is that of a file of this source.

        Args:
            piece: The piece.

        Raises:
            Failure: The store does not send it.
            OSError: It cannot be kept.
        """
        if item := self._items.get((piece.path, piece.mark, piece.size)):
            await self._keep_once(piece, item)

    async def wait_for_store(self, piece: Piece) -> None:
        """Wait for a piece that the store sends now. Others are not waited for: their tasks may wait for the caller.

        Args:
            piece: The piece.
        """
        if piece in self._from_store:
            await asyncio.wait([self._kept[piece]])

    async def _read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        """Yield a range of a file, which ends where a piece does."""
        piece = Piece(self._keys.source, str(item.path), item.mark, item.size or 0, start // RANGE * RANGE)
        yield memoryview(await self._obtain(piece, item))[start - piece.start : end - piece.start]

    async def _obtain(self, piece: Piece, item: Item) -> Buffer:
        """Return a piece: from the pod that reads it from the store, which may be this one, or else from the store."""
        if all(each.is_own for each in await self._addresses.list()):
            return await self._read_store(piece, item)
        for _ in range(_MOST_PODS):
            addresses = await self._rank(piece)
            if not addresses or addresses[0].is_own:
                break
            if (content := await self._request(addresses[0], piece)) is not None:
                return content
        with suppress(OSError):  # the disk is for the model first
            await self._keep_once(piece, item)
            return await run_in_thread(find_kept(self._folder, piece).read_bytes)
        return await self._read_store(piece, item)

    async def _rank(self, piece: Piece) -> list[Address]:
        """Return the addresses of a piece, without those that have just not sent one."""
        return rank((each for each in await self._addresses.list() if not self._is_left_out(each)), piece)

    def _is_left_out(self, address: Address) -> bool:
        is_silent = not address.is_own and address not in self._answered
        until = max(self._paused.get(address, 0.0), self._silent_until if is_silent else 0.0)
        return time.monotonic() < until

    async def _keep_once(self, piece: Piece, item: Item) -> None:
        """Keep a piece, which this pod reads once for itself and the others."""
        task = self._kept.get(piece)
        if task is None:
            task = self._kept[piece] = asyncio.create_task(self._keep(piece, item))
        await asyncio.wait([task])  # the end of one who waits does not end it for the others
        if not task.cancelled():  # with the fetch
            task.result()

    async def _keep(self, piece: Piece, item: Item) -> None:
        try:
            async with self._keeps:
                await run_in_thread(self._check_space)
                content = await self._read_for_all(piece, item)
                await run_in_thread(_write, find_kept(self._folder, piece), content)
        except (Failure, OSError):
            del self._kept[piece]  # the next request tries again
            raise

    def _check_space(self) -> None:
        """Refuse to keep a piece on a disk that has only the space that the model needs."""
        missing = self._progress.total - self._progress.fetched
        if shutil.disk_usage(self._folder).free < missing + RESERVE + _AT_ONCE * RANGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    async def _read_for_all(self, piece: Piece, item: Item) -> Buffer:
        """Return a piece from another pod, if one has it already or receives it, or else from the store."""
        others = [each for each in await self._rank(piece) if not each.is_own]
        others.sort(key=lambda each: each not in self._caches)
        for address in others[:_MOST_CACHES]:
            if self._is_left_out(address):
                continue
            if (content := await self._request(address, piece, only_if_cached=True)) is not None:
                self._caches.add(address)
                return content
        self._from_store.add(piece)
        try:
            return await self._read_store(piece, item)
        finally:
            self._from_store.discard(piece)

    async def _request(self, address: Address, piece: Piece, *, only_if_cached: bool = False) -> Buffer | None:
        """Return a piece from another pod; None: it does not send it, and may be left out for a while."""
        began = time.monotonic()
        try:
            content = await request_piece(address, piece, self._keys.secret, only_if_cached=only_if_cached)
        except PeerError as error:
            self._leave_out(address, time.monotonic() - began)
            self._log.info("a pod sends no piece", address=address.text, path=piece.path, detail=str(error))
            return None
        self._answered.add(address)
        self._waits = 0
        self._progress.from_pods += len(content or b"")
        return content

    def _leave_out(self, address: Address, waited: float) -> None:
        """Leave a pod out for a while, after a wait of some seconds in vain."""
        now = time.monotonic()
        self._paused[address] = now + max(_PAUSE, waited * _WAIT_PAUSE)
        self._answered.discard(address)
        self._waits += waited >= _LONG_WAIT
        if self._waits >= _MOST_WAITS:
            self._silent_until = max(self._silent_until, now + waited * _WAIT_PAUSE)

    async def _read_store(self, piece: Piece, item: Item) -> Buffer:
        async with aclosing(self._source.read_range(item, piece.start, piece.end)) as blocks:
            content = b"".join([block async for block in blocks])
        self._progress.downloaded += len(content)
        if len(content) != piece.end - piece.start:
            end = piece.start + len(content)
            message = f"{self.uri}: {item.path} ended after {end} of {item.size} bytes; the agent retries."
            raise Failure(Reason.FETCH_FAILED, message)
        return content


def _write(file: Path, content: Buffer) -> None:
    """Write a file that is complete once it has its name."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
