"""The space of the cache: what no pod uses is deleted, the longest unused first."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.cache.errors import CacheUnusableError
from conch_agent.cache.last import read_last
from conch_agent.cache.lease import delete_if_expired
from conch_agent.disk import RESERVE
from conch_agent.record import read_record, read_text
from conch_contract.parsing import parse_json

LONGEST_NAME: Final = 200  # bytes of a content's name
LONGEST_CONTENT: Final = 64 * 1024 * 1024  # bytes of the list of a content's files, which are up to 100,000


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
    def sources(self) -> Path:
        """The last contents of sources."""
        return self.root / "sources"

    @property
    def pods(self) -> Path:
        """Folders of pods."""
        return self.root / "pods"

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.blobs, self.parts, self.contents, self.archives, self.sources, self.pods


@dataclass(frozen=True)
class _Unused:
    """A file that can be deleted: when it was used last, its size, and its path."""

    used: float
    size: int
    path: Path


def delete_unused(
    folders: Folders, pod: Path, missing: int, max_bytes: int, needed: Collection[Path] = (), *, beside: int = 0
) -> int:
    """Delete files that no pod uses until so many bytes are free; return how many bytes were deleted.

    Args:
        folders: The folders of the cache.
        pod: The folder of this pod.
        missing: The bytes that are to be free.
        max_bytes: Size that the cache may have; 0: the file system is the limit.
        needed: Files that are not deleted.
        beside: Bytes of files that are no blobs yet, which count for the size of the cache.

    Raises:
        CacheUnusableError: What is in use leaves less. Nothing is deleted then.
    """
    if missing <= _count_free(folders, max_bytes, beside):
        return 0
    delete_expired(folders, pod)
    excess = missing - _count_free(folders, max_bytes, beside)
    unused = sorted((each for each in _find_unused(folders) if each.path not in needed), key=lambda each: each.used)
    if (lacking := excess - sum(each.size for each in unused)) > 0:
        raise _build_full(missing, lacking, max_bytes)
    deleted = 0
    for each in unused:
        if deleted >= excess:
            break
        if delete_part(each.path) if each.path.parent == folders.parts else _delete_blob(each.path):
            deleted += each.size
    _delete_records(folders)
    if deleted < excess:
        raise _build_full(missing, excess - deleted, max_bytes)
    return deleted


def _build_full(missing: int, lacking: int, max_bytes: int) -> CacheUnusableError:
    limit = f"the sizeLimit of {max_bytes} bytes" if max_bytes else "the claim"
    remedy = f"use a larger claim{' or sizeLimit' if max_bytes else ''}"
    beyond = min(lacking, missing)  # what is there may be beyond the limit already
    return CacheUnusableError(
        f"{missing} more bytes are needed, and {beyond} of them do not fit into {limit} beside what pods use: {remedy}"
    )


def delete_expired(folders: Folders, pod: Path) -> None:
    """Delete the folders of pods whose agents have ended, or have not renewed their lease.

    Args:
        folders: The folders of the cache.
        pod: The folder of this pod, which is renewed first: its time is that of the file system's clock.
    """
    os.utime(pod)
    now = pod.stat().st_mtime
    for other in folders.pods.iterdir():
        if other != pod:
            delete_if_expired(other, now, _note_use)


def _note_use(pod: Path, time_ns: int) -> None:
    """Note that the files of a pod were used until its lease was renewed last: a pod may serve for months."""
    for folder, _, files in os.walk(pod):
        for path in (Path(folder) / name for name in files):
            with suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_atime_ns < time_ns:
                    os.utime(path, ns=(time_ns, status.st_mtime_ns), follow_symlinks=False)


def _count_free(folders: Folders, max_bytes: int, beside: int) -> int:
    """Return the number of bytes that the cache may still take."""
    free = shutil.disk_usage(folders.root).free - RESERVE
    if not max_bytes:
        return free
    used = sum(_read_size(path) for folder in (folders.blobs, folders.parts) for path in folder.iterdir())
    return min(free, max_bytes - beside - used)


def _read_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _find_unused(folders: Folders) -> Iterator[_Unused]:
    """Yield blobs to which no pod has a link, and parts."""
    for path in [*folders.blobs.iterdir(), *folders.parts.glob("*.part")]:
        with suppress(FileNotFoundError):
            status = path.lstat()
            if status.st_nlink == 1 and not stat.S_ISDIR(status.st_mode):
                yield _Unused(status.st_atime, status.st_size, path)


def _delete_blob(path: Path) -> bool:
    path.unlink(missing_ok=True)  # a pod that has linked it since has its link
    return True


def delete_part(path: Path) -> bool:
    """Delete a part; return False for one that an agent downloads at the moment, or that is not there.

    Args:
        path: The part.
    """
    if path.is_symlink():
        return _delete_blob(path)
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)  # NFS locks only files that are open for writing
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

    def is_there(sha256: str) -> bool:
        return sha256 in blobs or (folders.blobs / sha256).exists()  # another pod may have added it since

    for path in folders.parts.glob("*.json"):
        has_part = path.with_suffix(".part").exists()
        record = None if has_part else read_record(path)
        if not has_part and not (record and is_there(record.sha256)):
            path.unlink(missing_ok=True)
    for path in folders.contents.iterdir():
        try:
            files = parse_json(read_text(path, LONGEST_CONTENT))
            is_whole = all(is_there(sha256) for sha256, _ in files.values())
        except (OSError, ValueError, TypeError, AttributeError):
            is_whole = False
        if not is_whole and not path.is_dir():
            path.unlink(missing_ok=True)
    _delete_references(folders)


def _delete_references(folders: Folders) -> None:
    """Delete what refers to contents that are gone: the records of archives, and the last contents of sources."""
    contents = {path.name for path in folders.contents.iterdir()}
    for path in folders.archives.iterdir():
        try:
            is_whole = read_text(path, LONGEST_NAME) in contents
        except (OSError, ValueError):
            is_whole = False
        if not is_whole and not path.is_dir():
            path.unlink(missing_ok=True)
    for path in folders.sources.iterdir():
        last = read_last(path)
        if not (last and last.digest.rpartition(":")[2] in contents) and not path.is_dir():
            path.unlink(missing_ok=True)
