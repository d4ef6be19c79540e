"""Blocks of a stream that are read while earlier ones are used, so that network, disk and hashing overlap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from conch_agent.sources.base import Buffer

BATCH: Final = 4 * 1024 * 1024  # bytes; to hand over fewer at a time costs more than to read them
_SECONDS: Final = 0.25  # after which fewer bytes are handed over: a restart of the agent loses what is not on disk


class ReadAhead:
    """Reads a stream in a task, until a number of bytes waits to be used."""

    def __init__(self, stream: AsyncGenerator[Buffer, None], most: int = 2 * BATCH) -> None:
        """Begin to read.

        Args:
            stream: The stream, which is closed at its end or by `close`.
            most: Number of bytes that may wait; the last block may exceed it.
        """
        self._blocks: list[Buffer] = []
        self._size = 0  # of the blocks, in bytes
        self._most = most
        self._is_due = asyncio.Event()
        self._has_space = asyncio.Event()
        self._task = asyncio.create_task(self._read(stream))
        self._task.add_done_callback(lambda _: self._is_due.set())

    async def _read(self, stream: AsyncGenerator[Buffer, None]) -> None:
        async with aclosing(stream):
            async for block in stream:
                self._blocks.append(block)
                self._size += len(block)
                if self._size >= min(BATCH, self._most):
                    self._is_due.set()
                if self._size >= self._most:
                    self._has_space.clear()
                    await self._has_space.wait()

    async def take(self) -> list[Buffer]:
        """Return the next blocks: BATCH bytes or more, or what there is after a moment; none at the end.

        Raises:
            Exception: That of the stream, after the blocks before it.
        """
        while not self._is_due.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await self._is_due.wait()
            if self._blocks:
                break
        blocks, self._blocks, self._size = self._blocks, [], 0
        if not self._task.done():
            self._is_due.clear()
        self._has_space.set()
        if not blocks:
            await self._task
        return blocks

    async def close(self) -> None:
        """End the task, and close the stream."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def read_ahead(stream: AsyncGenerator[Buffer, None]) -> AsyncGenerator[ReadAhead, None]:
    """Read a stream ahead while the block is active.

    Args:
        stream: The stream.
    """
    ahead = ReadAhead(stream)
    try:
        yield ahead
    finally:
        await ahead.close()
