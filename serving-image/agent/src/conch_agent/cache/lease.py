"""The lease of a pod on its folder in the cache, while which other pods do not delete the folder.

It is held by a lock of the kernel (flock) on a file in the folder as long as the agent runs, and by the folder's
modification time, which the agent renews, for 15 minutes after that. The lock keeps what a pod uses when the clock of
the file system is set; the time keeps it while the agent starts again, or has lost its connection to the file system.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from conch_agent.threads import run_in_thread

RENEWAL_SECONDS: Final = 60.0
_FIRST_SECONDS: Final = 1.0  # until the folder is there, which a fetch makes
_EXPIRY_SECONDS: Final = 900.0
_FILE: Final = ".lease"
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK  # NFS locks only files that are open for writing


async def keep_lease(find_folder: Callable[[], Path]) -> None:
    """Hold and renew the lease of a pod, until other pods have deleted its files because it was not renewed for long.

    Args:
        find_folder: Returns the folder of the pod; OSError: there is none yet.
    """
    lease, pause = _Lease(), _FIRST_SECONDS
    try:
        while await run_in_thread(lease.renew, find_folder):
            await asyncio.sleep(RENEWAL_SECONDS if lease.is_held else pause)
            pause = min(RENEWAL_SECONDS, 2 * pause)
    finally:
        lease.release()
    structlog.get_logger().warning("the lease in the cache was lost: the agent starts again, and fetches the models")


class _Lease:
    """The lock on the folder of a pod, once it has one."""

    def __init__(self) -> None:
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        """True from the first renewal of a folder that is there."""
        return self._handle is not None

    def renew(self, find_folder: Callable[[], Path]) -> bool:
        """Renew the lease; return False if the pod has lost its folder, or has another one than before.

        A fetch makes the folder again if it is deleted. While the claim does not answer, nothing has changed.

        Args:
            find_folder: As in `keep_lease`.
        """
        try:
            folder = find_folder()
            if self._handle is not None and not os.path.samestat((folder / _FILE).stat(), os.fstat(self._handle)):
                return False
            os.utime(folder)
            self._lock(folder / _FILE)
        except FileNotFoundError:
            return not self.is_held
        except OSError:
            return True
        return True

    def _lock(self, file: Path) -> None:
        """Lock the file, again at each renewal: a server of files may have lost the lock.

        Raises:
            OSError: It cannot be locked, such as while another pod deletes the folder.
        """
        handle = os.open(file, _FLAGS | os.O_CREAT, 0o644) if self._handle is None else self._handle
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            if self._handle is None:
                os.close(handle)
            raise
        self._handle = handle

    def release(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def delete_if_expired(folder: Path, now: float, before: Callable[[Path, int], None]) -> None:
    """Delete the folder of a pod whose lease has expired.

    Args:
        folder: The folder.
        now: The time of the file system's clock, in seconds.
        before: Called before the deletion, with the folder and the time of its last renewal in nanoseconds.
    """
    with suppress(FileNotFoundError):  # another agent deletes it, too
        renewed = folder.lstat()
        # A clock that was ahead has left a time that is not reached for long.
        if abs(now - renewed.st_mtime) <= _EXPIRY_SECONDS:
            return
        try:
            handle = os.open(folder / _FILE, _FLAGS)
        except OSError:  # its agent was never there for long, or it is no folder of an agent
            handle = None
        try:
            if handle is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before(folder, renewed.st_mtime_ns)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # its agent runs
        finally:
            if handle is not None:
                os.close(handle)
