"""Bring a source's files to disk: in parallel, hashed as they pass, continued where a killed agent stopped.

Below the model's download folder, `files/` holds whole files under their own names, `parts/` holds
unfinished ones and a record for each. A file enters `files/` by rename, never in place: what Triton serves
is a hard link to an older one and stays as it is.
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

from conch_agent.reasons import Failure, Reason
from conch_agent.record import Record, digest, hash_prefix, read_record, write_record
from conch_agent.sources.base import Item, Listing, Source
from conch_agent.tasks import run_all
from conch_agent.threads import in_thread

FILES_AT_ONCE: Final = 4
_SPARE: Final = 16 * 1024 * 1024  # bytes that stay free for records and folders


@dataclass
class Progress:
    """Bytes that are on disk and verified, of how many."""

    fetched: int = 0
    total: int = 0


@dataclass(frozen=True)
class Fetched:
    """The folder that holds the files, and what they are."""

    files: Path
    digest: str


@dataclass
class Fetch:
    """One source's way into one folder. `run` may be called again after a failure and goes on from there."""

    source: Source
    folder: Path
    max_bytes: int = 0
    progress: Progress = field(default_factory=Progress)

    async def run(self, listing: Listing) -> Fetched:
        """Fetch what is missing and return the whole; raises Failure."""
        self.progress.fetched, self.progress.total = 0, listing.total
        self._refuse_too_large(listing.total)
        with self._disk_errors():
            await in_thread(self._prepare, listing)
            gate = asyncio.Semaphore(FILES_AT_ONCE)
            sums: dict[str, str] = {}

            async def one(item: Item) -> None:
                async with gate:
                    sums[str(item.path)] = await self._file(item)

            await run_all(one(item) for item in listing.items)
        return Fetched(self.folder / "files", digest(sums))

    async def _file(self, item: Item) -> str:
        place = _Place(self.folder, item)
        record = await in_thread(read_record, place.record)
        if record and (record.tag, record.size) != (item.tag, item.size):
            record = None  # another content: nothing of it may be mixed in
        if record and record.done and await in_thread(_is, place.file, record):
            self.progress.fetched += record.offset
            return record.sha256
        if (local := self.source.local(item)) and (linked := await in_thread(_link, local, item, place)):
            self.progress.fetched += linked.offset
            return linked.sha256
        return await self._stream(item, place, record)

    async def _stream(self, item: Item, place: _Place, record: Record | None) -> str:
        state = await in_thread(_resume, place, record)
        offset = record.offset if record and state else 0
        state = state or hashlib.sha256()
        self.progress.fetched += offset
        with await in_thread(_open_part, place.part, offset) as part:
            if item.size is None or offset < item.size:
                async with aclosing(self.source.read(item, offset)) as chunks:
                    async for chunk in chunks:
                        self._refuse_more_than_declared(item, offset + len(chunk))
                        await asyncio.gather(in_thread(part.write, chunk), in_thread(state.update, chunk))
                        offset += len(chunk)
                        self.progress.fetched += len(chunk)
                        self._refuse_too_large(self.progress.fetched)
                        progress = Record(item.tag, item.size, offset, state.hexdigest())
                        await in_thread(write_record, place.record, progress)
        if item.size is not None and offset != item.size:
            await in_thread(place.record.unlink, missing_ok=True)
            message = f"{self.source.uri}: {item.path} ended after {offset} of {item.size} bytes; trying again."
            raise Failure(Reason.FETCH_FAILED, message)
        whole = Record(item.tag, item.size, offset, state.hexdigest(), done=True)
        await in_thread(_finish, place, whole)
        return whole.sha256

    def _refuse_more_than_declared(self, item: Item, size: int) -> None:
        """Refuse a chunk before it is written: the free space was compared with the declared size."""
        if item.size is not None and size > item.size:
            message = (
                f"{self.source.uri}: the server declared {item.size} bytes for {item.path}, and sends more; trying "
                "again. Read the server's log, or upload the file again."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        if item.size is None and shutil.disk_usage(self.folder).free < _SPARE:
            message = f"{self.source.uri}: the models volume is full. Give the service more storage."
            raise Failure(Reason.DISK_FULL, message)

    def _refuse_too_large(self, size: int) -> None:
        if self.max_bytes and size > self.max_bytes:
            message = f"{self.source.uri} has {size} bytes; this installation takes models up to {self.max_bytes}."
            raise Failure(Reason.TOO_LARGE, message)

    def _prepare(self, listing: Listing) -> None:
        """Make the folders, drop what the source no longer has, and look for room."""
        files, parts = self.folder / "files", self.folder / "parts"
        for folder in (files, parts):
            folder.mkdir(parents=True, exist_ok=True)
        wanted = {files / item.path for item in listing.items}
        for path in [path for path in files.rglob("*") if not path.is_dir() and path not in wanted]:
            path.unlink()
        records = {_Place(self.folder, item).part.stem for item in listing.items}
        for path in [path for path in parts.iterdir() if path.stem not in records]:
            path.unlink()
        here = sum(path.stat().st_size for path in [*files.rglob("*"), *parts.glob("*.part")] if path.is_file())
        free = shutil.disk_usage(self.folder).free
        if listing.total - here > free - _SPARE and not self._linkable(listing):
            message = (
                f"{self.source.uri} needs {listing.total - here} more bytes and the models volume has {free} free. "
                "Give the service more storage, or serve a smaller model."
            )
            raise Failure(Reason.DISK_FULL, message)

    def _linkable(self, listing: Listing) -> bool:
        local = self.source.local(listing.items[0])
        return local is not None and local.stat().st_dev == self.folder.stat().st_dev

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                message = f"{self.source.uri}: the models volume is full. Give the service more storage."
                raise Failure(Reason.DISK_FULL, message) from error
            message = f"{self.source.uri}: {error.strerror or error} ({error.filename})."
            raise Failure(Reason.FETCH_FAILED, message) from error


class _Place:
    """The three names of one file: whole, unfinished, and what is known of it."""

    def __init__(self, folder: Path, item: Item) -> None:
        stem = hashlib.sha256(str(item.path).encode()).hexdigest()[:32]
        self.file = folder / "files" / item.path
        self.part = folder / "parts" / f"{stem}.part"
        self.record = folder / "parts" / f"{stem}.json"


def _is(file: Path, record: Record) -> bool:
    """Tell whether the file is still what was fetched: a machine may have lost power since."""
    state = hash_prefix(file, record.offset)
    return state is not None and state.hexdigest() == record.sha256 and file.stat().st_size == record.offset


def _resume(place: _Place, record: Record | None) -> Any | None:
    """Return the hash state of the part that can be trusted, or None: begin anew."""
    if not record:
        return None
    state = hash_prefix(place.part, record.offset)
    return state if state and state.hexdigest() == record.sha256 else None


def _open_part(part: Path, offset: int) -> BinaryIO:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
    os.ftruncate(handle, offset)
    os.lseek(handle, offset, os.SEEK_SET)
    return os.fdopen(handle, "wb", buffering=0)


def _finish(place: _Place, record: Record) -> None:
    place.file.parent.mkdir(parents=True, exist_ok=True)
    place.part.replace(place.file)
    write_record(place.record, record)


def _link(local: Path, item: Item, place: _Place) -> Record | None:
    """Hard-link a local file into place and hash it; None where that cannot be (another file system)."""
    place.part.unlink(missing_ok=True)
    try:
        os.link(local, place.part)
    except OSError:
        return None
    size = place.part.stat().st_size
    state = hash_prefix(place.part, size)
    if state is None or size != item.size:
        raise Failure(Reason.CHANGED, f"{local} changed while it was read; starting over.")
    record = Record(item.tag, item.size, size, state.hexdigest(), done=True)
    _finish(place, record)
    return record
