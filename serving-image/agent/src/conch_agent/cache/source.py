"""A content of the cache as a source of files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Item, Listing
from conch_agent.sources.local import CHUNK
from conch_agent.threads import run_in_thread


class CachedSource:
    """The files of a content, each at the path of its blob."""

    def __init__(self, uri: str, items: tuple[Item, ...]) -> None:
        """Create the source.

        Args:
            uri: The storageUri, with which messages begin.
            items: The files.
        """
        self.uri = uri
        self._items = items

    async def list_files(self) -> Listing:
        """Return the files, as in Source."""
        return Listing(tuple(sorted(self._items, key=lambda item: item.path)))

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the file's chunks, as in Source."""
        try:
            stream = await run_in_thread(Path(item.key).open, "rb")
        except FileNotFoundError as error:
            message = f"{self.uri}: {item.path} was deleted from the cache; the agent reads the source."
            raise Failure(Reason.CHANGED, message) from error
        with stream:
            stream.seek(offset)
            while chunk := await run_in_thread(stream.read, CHUNK):
                yield chunk

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: the cache links its blobs itself."""
        return None
