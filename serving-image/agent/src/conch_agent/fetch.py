"""The fetch of a source's files to disk: parallel, with digests, and resumed after a restart of the agent.

In the model's download folder, `files/` has complete files under their own names, and `parts/` has incomplete files
and a record for each file. A file enters `files/` by a rename and is never overwritten: Triton's model folder has hard
links to older files, whose content must not change.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from conch_agent.digests import check_digest, read_chunks
from conch_agent.reasons import Failure, Reason
from conch_agent.record import Record, compute_digest, hash_prefix, read_record, write_record
from conch_agent.sources.base import Item, Listing, Source
from conch_agent.tasks import run_all
from conch_agent.threads import run_in_thread

MAX_PARALLEL_FILES: Final = 4
_RESERVE: Final = 16 * 1024 * 1024  # bytes that stay free for records and folders


@dataclass
class Progress:
    """Bytes on disk, of the total of the listing."""

    fetched: int = 0
    total: int = 0


@dataclass(frozen=True)
class FetchResult:
    """The folder of the fetched files, and their digest."""

    files: Path
    digest: str


def check_size(size: int, max_bytes: int, uri: str) -> None:
    """Refuse files that are larger than the installation allows.

    Args:
        size: Size of the files in bytes.
        max_bytes: The maximum; 0: there is none.
        uri: The storageUri, with which the message begins.

    Raises:
        Failure: TooLarge.
    """
    if max_bytes and size > max_bytes:
        message = f"{uri} has {size} bytes; this installation takes models up to {max_bytes}."
        raise Failure(Reason.TOO_LARGE, message)


@dataclass
class Fetch:
    """Fetches the files of a source into a folder. After a failure, `run` resumes."""

    source: Source
    folder: Path
    max_bytes: int = 0
    progress: Progress = field(default_factory=Progress)

    async def run(self, listing: Listing) -> FetchResult:
        """Fetch the missing files.

        Args:
            listing: The files of the source.

        Raises:
            Failure: The files cannot be read or stored.
        """
        self.progress.fetched, self.progress.total = 0, listing.total
        check_size(listing.total, self.max_bytes, self.source.uri)
        with self._translate_disk_errors():
            await run_in_thread(self._prepare, listing)
            semaphore = asyncio.Semaphore(MAX_PARALLEL_FILES)
            digests: dict[str, str] = {}

            async def fetch_one(item: Item) -> None:
                async with semaphore:
                    digests[str(item.path)] = await self._fetch_file(item)

            await run_all(fetch_one(item) for item in listing.items)
        return FetchResult(self.folder / "files", compute_digest(digests))

    async def _fetch_file(self, item: Item) -> str:
        paths = _FilePaths(self.folder, item)
        record = await run_in_thread(read_record, paths.record)
        if record and (record.tag, record.size) != (item.tag, item.size):
            record = None  # the record of another content
        if record and record.done and await run_in_thread(_is_intact, paths.file, record):
            self.progress.fetched += record.offset
            return record.sha256
        if (local := self.source.find_local(item)) and (linked := await run_in_thread(_link, local, item, paths)):
            self.progress.fetched += linked.offset
            return linked.sha256
        return await self._download(item, paths, record)

    async def _download(self, item: Item, paths: _FilePaths, record: Record | None) -> str:
        state = await run_in_thread(_resume, paths, record)
        offset = record.offset if record and state else 0
        state = state or hashlib.sha256()
        self.progress.fetched += offset
        with await run_in_thread(_open_part, paths.part, offset) as part:
            if item.size is None or offset < item.size:
                async with aclosing(self.source.read(item, offset)) as chunks:
                    async for chunk in chunks:
                        self._check_declared_size(item, offset + len(chunk))
                        await asyncio.gather(run_in_thread(part.write, chunk), run_in_thread(state.update, chunk))
                        offset += len(chunk)
                        self.progress.fetched += len(chunk)
                        check_size(self.progress.fetched, self.max_bytes, self.source.uri)
                        progress = Record(item.tag, item.size, offset, state.hexdigest())
                        await run_in_thread(write_record, paths.record, progress)
        if item.size is not None and offset != item.size:
            await run_in_thread(paths.record.unlink, missing_ok=True)
            message = f"{self.source.uri}: {item.path} ended after {offset} of {item.size} bytes; the agent retries."
            raise Failure(Reason.FETCH_FAILED, message)
        result = Record(item.tag, item.size, offset, state.hexdigest(), done=True)
        await run_in_thread(_verify, item, self.source.uri, paths, result)
        await run_in_thread(_finish, paths, result)
        return result.sha256

    def _check_declared_size(self, item: Item, size: int) -> None:
        """Refuse more bytes than declared before they are written: only the declared size fits on the disk."""
        if item.size is not None and size > item.size:
            message = (
                f"{self.source.uri}: the server declared {item.size} bytes for {item.path}, and sends more; the agent "
                "retries. Read the server's log, or upload the file again."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        if item.size is None and shutil.disk_usage(self.folder).free < _RESERVE:
            message = f"{self.source.uri}: the models volume is full. Give the service more storage."
            raise Failure(Reason.DISK_FULL, message)

    def _prepare(self, listing: Listing) -> None:
        """Make the folders, delete files that the source no longer has, and check the free space."""
        files, parts = self.folder / "files", self.folder / "parts"
        for folder in (files, parts):
            folder.mkdir(parents=True, exist_ok=True)
        expected = {files / item.path for item in listing.items}
        for path in [path for path in files.rglob("*") if not path.is_dir() and path not in expected]:
            path.unlink()
        for folder in sorted((path for path in files.rglob("*") if path.is_dir()), reverse=True):  # the deepest first
            if not any(folder.iterdir()):
                folder.rmdir()  # a file may have its name now
        records = {_FilePaths(self.folder, item).part.stem for item in listing.items}
        for path in [path for path in parts.iterdir() if path.stem not in records]:
            path.unlink()
        size_on_disk = sum(path.stat().st_size for path in [*files.rglob("*"), *parts.glob("*.part")] if path.is_file())
        free = shutil.disk_usage(self.folder).free
        missing = listing.total - size_on_disk
        if missing > free - _RESERVE and not self._is_linkable(listing):
            message = (
                f"{self.source.uri} needs {missing} more bytes and the models volume has {free} free. "
                "Give the service more storage, or serve a smaller model."
            )
            raise Failure(Reason.DISK_FULL, message)

    def _is_linkable(self, listing: Listing) -> bool:
        local = self.source.find_local(listing.items[0])
        return local is not None and local.stat().st_dev == self.folder.stat().st_dev

    @contextmanager
    def _translate_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                message = f"{self.source.uri}: the models volume is full. Give the service more storage."
                raise Failure(Reason.DISK_FULL, message) from error
            message = f"{self.source.uri}: {error.strerror or error} ({error.filename})."
            raise Failure(Reason.FETCH_FAILED, message) from error


class _FilePaths:
    """Paths of a file: complete, incomplete, and its record."""

    def __init__(self, folder: Path, item: Item) -> None:
        stem = hashlib.sha256(str(item.path).encode()).hexdigest()[:32]
        self.file = folder / "files" / item.path
        self.part = folder / "parts" / f"{stem}.part"
        self.record = folder / "parts" / f"{stem}.json"


def _is_intact(file: Path, record: Record) -> bool:
    """Return True if the file has the content of its record. A power loss may have damaged it."""
    state = hash_prefix(file, record.offset)
    return state is not None and state.hexdigest() == record.sha256 and file.stat().st_size == record.offset


def _resume(paths: _FilePaths, record: Record | None) -> Any | None:
    """Return the hash state of an intact incomplete file; None: fetch from the beginning."""
    if not record:
        return None
    state = hash_prefix(paths.part, record.offset)
    return state if state and state.hexdigest() == record.sha256 else None


def _open_part(part: Path, offset: int) -> BinaryIO:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
    os.ftruncate(handle, offset)
    os.lseek(handle, offset, os.SEEK_SET)
    return os.fdopen(handle, "wb", buffering=0)


def _verify(item: Item, uri: str, paths: _FilePaths, record: Record) -> None:
    """Refuse a fetched file without its declared digest. It is fetched again from the beginning."""
    try:
        check_digest(item, uri, record.sha256, record.offset, read_chunks(paths.part))
    except Failure:
        paths.record.unlink(missing_ok=True)
        raise


def _finish(paths: _FilePaths, record: Record) -> None:
    paths.file.parent.mkdir(parents=True, exist_ok=True)
    paths.part.replace(paths.file)
    write_record(paths.record, record)


def _link(local: Path, item: Item, paths: _FilePaths) -> Record | None:
    """Hard-link a local file and hash it; return None where links are impossible (another file system)."""
    paths.part.unlink(missing_ok=True)
    try:
        os.link(local, paths.part)
    except OSError:
        return None
    size = paths.part.stat().st_size
    state = hash_prefix(paths.part, size)
    if state is None or size != item.size:
        raise Failure(Reason.CHANGED, f"{local} changed while it was read; the agent reads it again.")
    record = Record(item.tag, item.size, size, state.hexdigest(), done=True)
    _finish(paths, record)
    return record
