"""The download of a file: with its digest, and resumed at the byte after a restart of the agent.

An incomplete file (a part) has a record beside it, which has the digest of what is there. A complete file leaves its
part by a rename, after its record states that it is complete.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from conch_agent.digests import check_digest, read_chunks
from conch_agent.disk import RESERVE
from conch_agent.read_ahead import read_ahead
from conch_agent.reasons import Failure, Reason
from conch_agent.record import Record, hash_prefix, read_record, write_record
from conch_agent.sources.base import Buffer, Item, Source
from conch_agent.threads import run_in_thread

_SMALL: Final = 256 * 1024  # bytes, which are hashed in less time than another thread takes to begin


@dataclass
class Progress:
    """Bytes on disk, of the total of the listing, and what the fetches of a model have cost.

    Attributes:
        fetched: Bytes on disk.
        total: Bytes of the listing.
        downloaded: Bytes that this pod has read from sources.
        from_pods: Bytes that this pod has read from other pods.
        hits: Files that the cache had.
        misses: Files that this pod has downloaded into the cache.
        waits: Files for which it has waited while another pod downloaded them.
        evicted: Bytes of unused files that were deleted from the cache.
    """

    fetched: int = 0
    total: int = 0
    downloaded: int = 0
    from_pods: int = 0
    hits: int = 0
    misses: int = 0
    waits: int = 0
    evicted: int = 0


@dataclass(frozen=True)
class Part:
    """The paths of an incomplete file and of its record."""

    file: Path
    record: Path


def find_part(folder: Path, path: PurePosixPath) -> Part:
    """Return the paths of a file's part.

    Args:
        folder: The download folder of the model.
        path: Path of the file below the root of the source.
    """
    stem = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    return Part(folder / "parts" / f"{stem}.part", folder / "parts" / f"{stem}.json")


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
class Download:
    """Downloads files of a source.

    Attributes:
        source: The source.
        progress: Counts the bytes of all files.
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
        is_counted: False if the source itself counts the bytes that it reads.
    """

    source: Source
    progress: Progress
    max_bytes: int = 0
    is_counted: bool = True

    async def run(self, item: Item, part: Part) -> Record:
        """Download what a part lacks of its file; return the record of the complete file, which stays in the part.

        Args:
            item: The file.
            part: Its part, from an earlier run or absent.

        Raises:
            Failure: The file cannot be read, or has not the declared size or digest.
            OSError: It cannot be written.
        """
        begun = await run_in_thread(_begin, item, part)
        offset, state = begun.offset, begun.state
        self.progress.fetched += offset
        with begun.stream:
            if not begun.is_complete:
                offset = await self._read_rest(item, part, begun)
            if item.size is not None and offset != item.size:
                await run_in_thread(part.record.unlink, missing_ok=True)
                message = (
                    f"{self.source.uri}: {item.path} ended after {offset} of {item.size} bytes; the agent retries."
                )
                raise Failure(Reason.FETCH_FAILED, message)
            result = Record(item.mark, item.size, offset, state.hexdigest(), done=True)
            await run_in_thread(_complete, item, self.source.uri, part, begun.stream, result)
        return result

    async def _read_rest(self, item: Item, part: Part, begun: _Begun) -> int:
        """Append the bytes after the offset; return the size of the file."""
        offset = begun.offset
        async with read_ahead(self.source.read(item, offset)) as ahead:
            while blocks := await ahead.take():
                size = sum(map(len, blocks))
                self._check_declared_size(item, offset + size)
                if item.size is None:
                    await run_in_thread(_check_reserve, part.file.parent)
                await _store(begun.stream, begun.state, blocks, size)
                offset += size
                self.progress.fetched += size
                self.progress.downloaded += size if self.is_counted else 0
                check_size(self.progress.fetched, self.max_bytes, self.source.uri)
                if offset != item.size:
                    record = Record(item.mark, item.size, offset, begun.state.hexdigest())
                    await run_in_thread(write_record, part.record, record)
        return offset

    def _check_declared_size(self, item: Item, size: int) -> None:
        """Refuse more bytes than declared before they are written: only the declared size fits on the disk."""
        if item.size is not None and size > item.size:
            message = (
                f"{self.source.uri}: the server declared {item.size} bytes for {item.path}, and sends more; the agent "
                "retries. Read the server's log, or upload the file again."
            )
            raise Failure(Reason.FETCH_FAILED, message)


def _check_reserve(folder: Path) -> None:
    if shutil.disk_usage(folder).free < RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@dataclass(frozen=True)
class _Begun:
    """A part that is open for writing at its end, with the state of its hash."""

    stream: BinaryIO
    state: Any
    offset: int
    is_complete: bool


def _begin(item: Item, part: Part) -> _Begun:
    """Open a part, which is emptied unless its record is that of the file and of what is there."""
    record = read_record(part.record)
    if record and (not item.mark or (record.tag, record.size) != (item.mark, item.size)):
        record = None  # it may be the record of another content
    state = _resume(part, record)
    offset = record.offset if record and state else 0
    if not offset:
        part.record.unlink(missing_ok=True)  # the part has not these bytes any more, which other pods may request
    is_complete = bool(record and state and record.done) or (item.size is not None and offset == item.size)
    return _Begun(_open_part(part.file, offset), state or hashlib.sha256(), offset, is_complete)


async def _store(stream: BinaryIO, state: Any, blocks: Sequence[Buffer], size: int) -> None:
    """Write and hash blocks; many bytes in two threads at the same time."""
    if size <= _SMALL:
        await run_in_thread(_write_and_hash, stream, state, blocks)
    else:
        await asyncio.gather(run_in_thread(_write, stream, blocks), run_in_thread(_hash, state, blocks))


def _write(stream: BinaryIO, blocks: Sequence[Buffer]) -> None:
    """Write all bytes: a disk that becomes full takes only some of them at first, and refuses the next."""
    for block in blocks:
        view = memoryview(block)
        while view:
            view = view[stream.write(view) :]


def _write_and_hash(stream: BinaryIO, state: Any, blocks: Sequence[Buffer]) -> None:
    _write(stream, blocks)
    _hash(state, blocks)


def _hash(state: Any, blocks: Sequence[Buffer]) -> None:
    for block in blocks:
        state.update(block)


def _resume(part: Part, record: Record | None) -> Any | None:
    """Return the hash state of an intact incomplete file; None: download from the beginning."""
    if not record:
        return None
    state = hash_prefix(part.file, record.offset)
    return state if state and state.hexdigest() == record.sha256 else None


def _open_part(part: Path, offset: int) -> BinaryIO:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    os.ftruncate(handle, offset)
    os.lseek(handle, offset, os.SEEK_SET)
    return os.fdopen(handle, "wb", buffering=0)


def _complete(item: Item, uri: str, part: Part, stream: BinaryIO, record: Record) -> None:
    """Close a complete part, and write its record; without its declared digest, delete it to begin anew."""
    stream.close()
    try:
        check_digest(item, uri, record.sha256, record.offset, read_chunks(part.file))
    except Failure:
        part.record.unlink(missing_ok=True)
        raise
    write_record(part.record, record)
