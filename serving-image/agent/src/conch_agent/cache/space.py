"""The space of the cache: what no pod uses is deleted, the longest unused first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.cache.errors import CacheUnusableError
from conch_agent.download import RESERVE
from conch_agent.record import read_record
from conch_contract.parsing import parse_json

_LEASE_SECONDS: Final = 900.0  # after which the folder of a pod whose agent does not renew it is deleted
RENEWAL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Folders:
    """The folders of a cache, as in `conch_agent.cache`."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Complete files."""
        return self.root / "blobs"

    @property
    def parts(self) -> Path:
        """Incomplete files, and the records of all."""
        return self.root / "parts"

    @property
    def contents(self) -> Path:
        """Contents of models."""
        return self.root / "contents"

    @property
    def archives(self) -> Path:
        """Digests of the contents of archives, by the archives."""
        return self.root / "archives"

    @property
    def pods(self) -> Path:
        """Folders of pods."""
        return self.root / "pods"

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.blobs, self.parts, self.contents, self.archives, self.pods


@dataclass(frozen=True)
class _Unused:
    """A file that can be deleted: when it was used last, its size, and its path."""

    used: float
    size: int
    path: Path


def delete_unused(folders: Folders, pod: Path, missing: int, max_bytes: int) -> None:
    """Delete files that no pod uses until so many bytes are free.

    Args:
        folders: The folders of the cache.
        pod: The folder of this pod.
        missing: The bytes that are to be free.
        max_bytes: Size that the cache may have; 0: the file system is the limit.

    Raises:
        CacheUnusableError: What is in use leaves less.
    """
    if missing <= _count_free(folders, max_bytes):
        return
    delete_expired(folders, pod)
    excess = missing - _count_free(folders, max_bytes)
    unused = sorted(_find_unused(folders), key=lambda each: each.used)
    for each in unused:
        if excess <= 0:
            break
        if _delete(each.path):
            excess -= each.size
    _delete_records(folders)
    if excess > 0:
        limit = f" of {max_bytes}" if max_bytes else ""
        raise CacheUnusableError(
            f"{missing} more bytes are needed, and what other pods use leaves {excess} too few{limit}"
        )


def delete_expired(folders: Folders, pod: Path) -> None:
    """Delete the folders of pods whose agents have not renewed their lease.

    Args:
        folders: The folders of the cache.
        pod: The folder of this pod, which is renewed first: its time is that of the file system's clock.
    """
    os.utime(pod)
    now = pod.stat().st_mtime
    for other in folders.pods.iterdir():
        with suppress(FileNotFoundError):  # another agent deletes it, too
            if other != pod and now - other.stat().st_mtime > _LEASE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def _count_free(folders: Folders, max_bytes: int) -> int:
    """Return the number of bytes that the cache may still take."""
    free = shutil.disk_usage(folders.root).free - RESERVE
    if not max_bytes:
        return free
    used = sum(_read_size(path) for folder in (folders.blobs, folders.parts) for path in folder.iterdir())
    return min(free, max_bytes - used)


def _read_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _find_unused(folders: Folders) -> Iterator[_Unused]:
    """Yield blobs to which no pod has a link, and parts."""
    for path in [*folders.blobs.iterdir(), *folders.parts.glob("*.part")]:
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_nlink == 1:
                yield _Unused(status.st_atime, status.st_size, path)


def _delete(path: Path) -> bool:
    """Delete a file; return False for one that an agent downloads at the moment."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _delete_records(folders: Folders) -> None:
    """Delete what describes deleted files: records without a part whose blob is gone, contents that lack a blob."""
    blobs = {path.name for path in folders.blobs.iterdir()}
    for path in folders.parts.glob("*.json"):
        record = read_record(path)
        if not path.with_suffix(".part").exists() and not (record and record.sha256 in blobs):
            path.unlink(missing_ok=True)
    for path in folders.contents.iterdir():
        try:
            is_whole = all(sha256 in blobs for sha256, _ in parse_json(path.read_text()).values())
        except (OSError, ValueError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            path.unlink(missing_ok=True)
    contents = {path.name for path in folders.contents.iterdir()}
    for path in folders.archives.iterdir():
        with suppress(FileNotFoundError):  # another agent deletes it, too
            if path.read_text() not in contents:
                path.unlink()
