"""Reads of objects, by signed URLs or the client of the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import PreconditionError

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Item
from conch_agent.sources.ranged_reads import RangedReads
from conch_agent.sources.signed_reads import SignedReads
from conch_agent.sources.store_client import is_same_tag, quote_tag

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

_RANGES_AT_ONCE: Final = 8


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
        self._reads = RangedReads(self.read_range, _RANGES_AT_ONCE)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of an object in order, while those after them are read.

        Args:
            item: The object.
            offset: Number of bytes to skip.

        Raises:
            Failure: As `read_range`.
        """
        async with aclosing(self._reads.read(item, offset)) as blocks:
            async for block in blocks:
                yield block

    async def read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        """Yield some bytes of an object in order.

        Args:
            item: The object.
            start: The first byte.
            end: The byte after the last.

        Raises:
            Failure: SourceChanged for an object with another content, or FetchFailed.
        """
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
