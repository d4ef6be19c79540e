"""The lock of a part, which one of the pods that share a cache holds while it downloads the file.

It is a lock of the kernel (flock) on the part itself: a killed agent gives it up, and the next one resumes where it
stopped. File systems that several nodes mount have to share such locks, as NFS 4, CephFS and Lustre do.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from conch_agent.threads import run_in_thread

_POLL_SECONDS: Final = 0.2


@asynccontextmanager
async def hold(part: Path, on_wait: Callable[[], None]) -> AsyncGenerator[None, None]:
    """Hold the lock of a part.

    Args:
        part: The part. It is created, and stays as an empty file if nothing is written.
        on_wait: Called each time that another agent is seen to hold it.

    Raises:
        OSError: The part cannot be written.
    """
    while (handle := await run_in_thread(_try, part)) is None:
        await run_in_thread(on_wait)
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(handle)


def _try(part: Path) -> int | None:
    """Return the handle that holds the lock; None while another one holds it."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(part, handle):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is_at(part: Path, handle: int) -> bool:
    """Return True if the file still has this name: its last holder may have made a blob of it."""
    try:
        return os.path.samestat(part.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
