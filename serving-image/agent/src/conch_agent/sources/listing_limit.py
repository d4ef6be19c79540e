"""The bounds of a list of files while it is read: its number of files, and the time for all of its pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import MOST_FILES, build_too_large

SECONDS: Final = 600.0  # for 100,000 files, so 100 pages or more


class ListingLimit:
    """The bounds of one list. It may have as many excluded files as others."""

    def __init__(self, uri: str) -> None:
        """Create the limit.

        Args:
            uri: The storageUri, with which messages begin.
        """
        self._uri = uri
        self._count = 0

    def add(self, count: int) -> None:
        """Count files that were listed.

        Args:
            count: Their number.

        Raises:
            Failure: TooLarge.
        """
        self._count += count
        if self._count > 2 * MOST_FILES:
            raise build_too_large(self._uri)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[ListingLimit, None]:
        """End the block if it lists for too long.

        Raises:
            Failure: FetchFailed.
        """
        try:
            async with asyncio.timeout(SECONDS) as limit:
                yield self
        except TimeoutError:
            if not limit.expired():
                raise
            message = (
                f"{self._uri}: the server listed {self._count} files in {SECONDS:g} s, and the list has not ended. The"
                " agent retries. Read the server's log, or point storageUri at the model's folder alone."
            )
            raise Failure(Reason.FETCH_FAILED, message, is_outage=True) from None
