"""The least speed at which a server sends an answer.

A total would fail a large file on a slow line, and a limit of the silence between two blocks permits a byte a second
for ever. So each minute of waiting has a minimum of bytes: a line that reaches it is never too slow, however large the
file is, and a model at less would take days. Time in which the agent writes to its disk does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

SECONDS: Final = 60.0
LEAST_BYTES: Final = 60 * 1024  # in SECONDS

_Block = TypeVar("_Block", bytes, bytearray)


class StalledError(Exception):
    """An answer slower than the least speed. The text continues a sentence that begins with the server's name."""


@dataclass
class Pace:
    """Waits for the blocks of one answer."""

    _total: int = 0
    _received: int = 0
    _left: float = field(default_factory=lambda: SECONDS)

    async def wait(self, read: Callable[[], Awaitable[_Block]]) -> _Block:
        """Return the next block.

        Args:
            read: Reads it; empty at the end of the answer. It is called again after it was cancelled.

        Raises:
            StalledError: The server sent less than LEAST_BYTES in SECONDS of waiting.
        """
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, self._left)) as limit:
                    block = await read()
            except TimeoutError:
                if not limit.expired():
                    raise
                self._end_window()
                continue
            self._left -= time.monotonic() - began
            self._total += len(block)
            self._received += len(block)
            return block

    def _end_window(self) -> None:
        """Begin the next minute, if this one had enough."""
        if self._received < LEAST_BYTES:
            raise StalledError(
                f"sent {self._received} bytes in {SECONDS:g} s, after {self._total - self._received} before; at least"
                f" {LEAST_BYTES} are expected"
            )
        self._received, self._left = 0, SECONDS
