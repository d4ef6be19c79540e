"""Reads of objects: parallel ranges, whose bytes are yielded in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import PreconditionError

from conch_agent.read_ahead import ReadAhead
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Item
from conch_agent.sources.signed_reads import SignedReads
from conch_agent.sources.store_client import is_same_tag, quote_tag

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

_RANGE: Final = 8 * 1024 * 1024  # bytes
_RANGES_AT_ONCE: Final = 8  # of all files: memory is bounded by their bytes


class ObjectReads:
    """Reads the objects of a bucket whose client is open."""

    def __init__(self, uri: str, store: ObjectStore, signed: SignedReads | None) -> None:
        """Create the reads.

        Args:
            uri: The storageUri, with which messages begin.
            store: The client of the bucket.
            signed: Reads by signed URLs; None: there are no credentials.
        """
        self._uri = uri
        self._store = store
        self._signed = signed
        self._slots = asyncio.Semaphore(_RANGES_AT_ONCE)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of an object in order, while those after them are read.

        Of each object the next range waits for a slot. Those after it take a slot only where nothing waits, so that
        every object gets on.

        Args:
            item: The object.
            offset: Number of bytes to skip.

        Raises:
            Failure: SourceChanged for an object with another content, or FetchFailed.
        """
        size = item.size or 0
        starts = deque(range(offset, size, _RANGE))
        ranges: deque[ReadAhead] = deque()
        try:
            while starts or ranges:
                while starts and (not ranges or not self._slots.locked()):
                    await self._slots.acquire()
                    start = starts.popleft()
                    ranges.append(ReadAhead(self._read_range(item, start, min(start + _RANGE, size)), _RANGE))
                while blocks := await ranges[0].take():
                    for block in blocks:
                        yield block
                ranges.popleft()
                self._slots.release()
        finally:
            for each in ranges:
                await each.close()
                self._slots.release()

    async def _read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        if self._signed:
            async with aclosing(self._signed.read(item, start, end)) as blocks:
                async for block in blocks:
                    start += len(block)
                    yield block
        if start < end:
            yield await self._read_by_client(item, start, end)

    async def _read_by_client(self, item: Item, start: int, end: int) -> Buffer:
        try:
            options: GetOptions = {"range": (start, end), "if_match": quote_tag(item.tag) or None}
            if item.version:
                options["version"] = item.version
            answer = await obstore.get_async(self._store, item.key, options=options)
            if not is_same_tag(answer.meta["e_tag"] or "", item.tag) or answer.meta["size"] != item.size:
                raise build_changed(self._uri, item)
            content = memoryview(await answer.bytes_async())
        except (FileNotFoundError, PreconditionError) as error:
            raise build_changed(self._uri, item) from error
        if len(content) != end - start:
            message = (
                f"{self._uri}: the store sent {len(content)} bytes of {item.key}, and {end - start} were requested; "
                "the agent retries."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        return content


def build_changed(uri: str, item: Item) -> Failure:
    """Return the failure of an object with another content than the listed one.

    Args:
        uri: The storageUri, with which the message begins.
        item: The object.
    """
    return Failure(Reason.CHANGED, f"{uri}: {item.path} changed while it was fetched; the agent fetches the new one.")
