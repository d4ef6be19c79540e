"""Parses what pods answer, with a maximum of the event loop's time for each namespace.

Why beside the limits on sizes: an answer within them may take as long to parse as a hundred honest ones, and a
namespace may have many pods.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from conch.signals.limiter import FairLimiter

_AT_ONCE: Final = 2  # namespaces: together they take at most two fifths of the time
_REST: Final = 4  # times as long as an answer took to parse, a namespace parses no other

Parsed = TypeVar("Parsed")


class Reader:
    """Parses answers. One event loop."""

    def __init__(self) -> None:
        self._limiter = FairLimiter(_AT_ONCE)

    async def read(self, namespace: str, parse: Callable[[], Parsed]) -> Parsed:
        """Return what `parse` returns, and raise what it raises. A namespace has at most a fifth of the time."""
        async with self._limiter.turn(namespace):
            began = time.perf_counter()
            try:
                return parse()
            finally:
                await asyncio.sleep(_REST * (time.perf_counter() - began))
