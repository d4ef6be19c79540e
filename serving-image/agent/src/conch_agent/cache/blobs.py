"""Blobs: complete files under the SHA-256 of their content."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from conch_agent.record import Record, hash_prefix

# The modification time of a blob, 2000-01-01. One that was written to has another time.
_SEALED_NS: Final = 946_684_800 * 10**9
_READ_ONLY: Final = 0o444
_EXECUTABLE: Final = 0o111


class Blobs:
    """The folder of blobs."""

    def __init__(self, folder: Path) -> None:
        """Create the interface.

        Args:
            folder: The folder, which exists.
        """
        self.folder = folder

    def get_path(self, sha256: str) -> Path:
        """Return the path of a blob.

        Args:
            sha256: Its SHA-256 in hexadecimal.
        """
        return self.folder / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Return True for a blob that is there with its content. A damaged one is deleted.

        Args:
            sha256: Its SHA-256 in hexadecimal.
            size: Its size in bytes.
        """
        path = self.get_path(sha256)
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size == size and status.st_mtime_ns == _SEALED_NS:
            return True
        state = hash_prefix(path, size) if status.st_size == size else None
        if state and state.hexdigest() == sha256:
            with suppress(PermissionError):  # another uid has written it: it is hashed each time
                _seal(path)
            return True
        path.unlink(missing_ok=True)  # pods that have a link to it keep it
        return False

    def add(self, part: Path, record: Record, target: Path) -> None:
        """Link a complete part, and make a blob of it, unless another file was the same.

        It is on disk before it has its name. The link comes first: other pods delete a blob without one.

        Args:
            part: The file.
            record: Its record.
            target: The path of the link, which is replaced.
        """
        if self.has(record.sha256, record.offset):
            with suppress(FileNotFoundError):  # deleted meanwhile
                self.link(record.sha256, target)
                part.unlink()
                return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(part, target)
        _finish(part, self.get_path(record.sha256))

    def share(self, file: Path, sha256: str, size: int) -> None:
        """Make a blob of a file that keeps its name, unless there is one.

        Args:
            file: The file, on the file system of the blobs.
            sha256: Its SHA-256 in hexadecimal.
            size: Its size in bytes.
        """
        if self.has(sha256, size):
            if file.stat().st_mode & _EXECUTABLE:
                with suppress(PermissionError, FileNotFoundError):  # another uid has written it, or it is deleted
                    self.get_path(sha256).chmod(_READ_ONLY | _EXECUTABLE)
            return
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        _seal(file)
        with suppress(FileExistsError):  # another pod has been first
            os.link(file, self.get_path(sha256))
        sync_folder(self.folder)

    def link(self, sha256: str, target: Path) -> None:
        """Link a blob, and note that it is used.

        Args:
            sha256: Its SHA-256 in hexadecimal.
            target: The path of the link, which is replaced.

        Raises:
            FileNotFoundError: Another pod has deleted the blob.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(self.get_path(sha256), target)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._copy(sha256)
            os.link(self.get_path(sha256), target)
        with suppress(PermissionError):  # another uid has written it: it is deleted as one that is not used again
            os.utime(target, ns=(time.time_ns(), _SEALED_NS))

    def _copy(self, sha256: str) -> None:
        """Replace a blob by a copy: a file system has a maximum of links to a file, such as 65,000."""
        path = self.get_path(sha256)
        copy = path.with_name(f"{sha256}.{secrets.token_hex(8)}")
        shutil.copy(path, copy)
        _finish(copy, path)


def _finish(file: Path, path: Path) -> None:
    """Give a complete file the name of its blob, once it is on disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    _seal(file)
    file.replace(path)
    sync_folder(path.parent)


def _seal(path: Path) -> None:
    path.chmod(_READ_ONLY | path.stat().st_mode & _EXECUTABLE)
    os.utime(path, ns=(time.time_ns(), _SEALED_NS))


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk.

    Args:
        folder: The folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
