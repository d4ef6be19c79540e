"""The fetch of a source's files to disk: several at a time, from the cache where it has them.

In the model's download folder, `files/` has complete files under their own names, and `parts/` has incomplete files
and a record for each file. A file enters `files/` by a rename or a hard link and is never overwritten: Triton's model
folder has hard links to older files, whose content must not change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch_agent.cache import Cache, CacheUnusableError
from conch_agent.disk import check_space, translate_full_disk
from conch_agent.download import Download, Part, Progress, check_size, find_part
from conch_agent.peers import PeerSource
from conch_agent.reasons import Failure, Reason
from conch_agent.record import Record, compute_digest, hash_prefix, read_record, write_record
from conch_agent.sources.base import ConnectedSource, Item, Listing, Source
from conch_agent.tasks import run_all
from conch_agent.threads import run_in_thread

_LARGE_AT_ONCE: Final = 4
_SMALL_AT_ONCE: Final = 32  # most of the time of a small file is a wait for the store's answer
_SMALL: Final = 1024 * 1024  # bytes


@dataclass(frozen=True)
class FetchResult:
    """The folder of the fetched files, their digest, and the SHA-256 of each file by its path."""

    files: Path
    digest: str
    sha256: Mapping[str, str]


@dataclass
class Fetch:
    """Fetches the files of a source into a folder. After a failure, `run` resumes.

    Attributes:
        source: The source.
        folder: The model's download folder; with a cache, on the file system of the cache.
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
        progress: Counts the bytes.
        cache: The cache that several pods share; None: the files are in the folder alone.
    """

    source: Source
    folder: Path
    max_bytes: int = 0
    progress: Progress = field(default_factory=Progress)
    cache: Cache | None = None

    async def run(self, listing: Listing) -> FetchResult:
        """Fetch the missing files.

        Args:
            listing: The files of the source.

        Raises:
            Failure: The files cannot be read or stored.
            CacheUnusableError: The cache cannot take them.
        """
        self.progress.fetched, self.progress.total = 0, listing.total
        check_size(listing.total, self.max_bytes, self.source.uri)
        with translate_disk_errors(self.source.uri, self.cache):
            await run_in_thread(self._prepare, listing)
            small, large = asyncio.Semaphore(_SMALL_AT_ONCE), asyncio.Semaphore(_LARGE_AT_ONCE)
            records: dict[str, Record] = {}

            async def fetch_one(item: Item) -> None:
                async with large if item.size is None or item.size > _SMALL else small:
                    records[str(item.path)] = await self._fetch_file(item)

            source = self.source
            async with source.connect() if isinstance(source, ConnectedSource) else nullcontext():
                await run_all(fetch_one(item) for item in listing.items)
            sha256 = {path: record.sha256 for path, record in records.items()}
            digest = compute_digest(sha256)
            if self.cache:
                await run_in_thread(self.cache.write_content, digest, records)
        return FetchResult(self.folder / "files", digest, sha256)

    async def _fetch_file(self, item: Item) -> Record:
        file, part = self.folder / "files" / item.path, find_part(self.folder, item.path)
        is_counted = not isinstance(self.source, PeerSource)
        download = Download(self.source, self.progress, self.max_bytes, is_counted)
        if self.cache:
            return await self.cache.fetch(item, download, file)
        present = await run_in_thread(_find_intact, file, item, part)
        if present is None and (local := self.source.find_local(item)):
            present = await run_in_thread(_link, local, item, file, part)
        if present:
            self.progress.fetched += present.offset
            return present
        record = await download.run(item, part)
        await run_in_thread(_finish, part, file)
        return record

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
        records = set() if self.cache else {find_part(self.folder, item.path).file.stem for item in listing.items}
        for path in [path for path in parts.iterdir() if path.stem not in records]:
            path.unlink()
        if self.cache:
            self.progress.evicted += self.cache.make_space_for(listing.items, self.source.uri)
            return
        size_on_disk = sum(path.stat().st_size for path in [*files.rglob("*"), *parts.glob("*.part")] if path.is_file())
        if not self._is_linkable(listing):
            missing = listing.total - size_on_disk
            check_space(f"{self.source.uri} needs {missing} more bytes", missing, self.folder)

    def _is_linkable(self, listing: Listing) -> bool:
        local = self.source.find_local(listing.items[0])
        return local is not None and local.stat().st_dev == self.folder.stat().st_dev


@contextmanager
def translate_disk_errors(uri: str, cache: Cache | None) -> Iterator[None]:
    """Have errors of the disk as failures of the model, or of the cache.

    Args:
        uri: The storageUri, with which messages begin.
        cache: The cache on that disk; None: it is the pod's.

    Raises:
        Failure: DiskFull or FetchFailed.
        CacheUnusableError: The cache cannot take the files.
    """
    try:
        with nullcontext() if cache else translate_full_disk(uri):
            yield
    except OSError as error:
        if cache:
            raise CacheUnusableError.from_os_error(error) from error
        message = f"{uri}: {error.strerror or error} ({error.filename}). Check the disk of the pod's node."
        raise Failure(Reason.FETCH_FAILED, message) from error


def _find_intact(file: Path, item: Item, part: Part) -> Record | None:
    """Return the record of a file that is there with its content; None: it is not. A power loss may have damaged it."""
    record = read_record(part.record)
    if not record or not record.done or (record.tag, record.size) != (item.mark, item.size):
        return None
    state = hash_prefix(file, record.offset)
    is_intact = state is not None and state.hexdigest() == record.sha256 and file.stat().st_size == record.offset
    return record if is_intact else None


def _finish(part: Part, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part.file.replace(file)


def _link(local: Path, item: Item, file: Path, part: Part) -> Record | None:
    """Hard-link a local file and hash it; return None where links are impossible (another file system)."""
    part.file.unlink(missing_ok=True)
    try:
        os.link(local, part.file)
    except OSError:
        return None
    size = part.file.stat().st_size
    state = hash_prefix(part.file, size)
    if state is None or size != item.size:
        raise Failure(Reason.CHANGED, f"{local} changed while it was read; the agent reads it again.")
    record = Record(item.mark, item.size, size, state.hexdigest(), done=True)
    write_record(part.record, record)
    _finish(part, file)
    return record
