"""Reads of files in ranges: several at once, whose bytes are yielded in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

from conch_agent.read_ahead import ReadAhead
from conch_agent.sources.base import Buffer, Item

RANGE: Final = 8 * 1024 * 1024  # bytes


class RangedReads:
    """Reads ranges of files. All files share its slots, so that memory is bounded by their bytes."""

    def __init__(self, read_range: Callable[[Item, int, int], AsyncGenerator[Buffer, None]], at_once: int) -> None:
        """Create the reads.

        Args:
            read_range: Yields the bytes of a file from an offset to another in order.
            at_once: Number of ranges that are read at once.
        """
        self._read_range = read_range
        self._slots = asyncio.Semaphore(at_once)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of a file in order, while those after them are read.

        Of each file the next range waits for a slot. Those after it take a slot only where nothing waits, so that
        every file gets on.

        Args:
            item: The file, whose size is known.
            offset: Number of bytes to skip.

        Raises:
            Failure: That of a range.
        """
        spans = deque(split_ranges(offset, item.size or 0))
        ranges: deque[ReadAhead] = deque()
        try:
            while spans or ranges:
                while spans and (not ranges or not self._slots.locked()):
                    await self._slots.acquire()
                    ranges.append(ReadAhead(self._read_range(item, *spans.popleft()), RANGE))
                while blocks := await ranges[0].take():
                    for block in blocks:
                        yield block
                await ranges.popleft().close()
                self._slots.release()
        finally:
            for each in ranges:
                await each.close()
                self._slots.release()


def split_ranges(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file: each ends at a multiple of RANGE, so that they are the same for all offsets.

    Args:
        offset: The first byte.
        size: The size of the file in bytes.

    >>> [(start // 2**20, end // 2**20) for start, end in split_ranges(2**20, 20 * 2**20)]
    [(1, 8), (8, 16), (16, 20)]
    """
    while offset < size:
        end = min(size, (offset // RANGE + 1) * RANGE)
        yield offset, end
        offset = end
