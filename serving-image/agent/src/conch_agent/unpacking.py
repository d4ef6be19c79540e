"""From archives to files: archives are fetched as files are, and unpacked into a folder, which is a source of files.

Without a cache the files of that folder are linked into the model's. With one they become blobs, and what archives
hold is recorded, so that other pods neither fetch nor unpack them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch_agent.archives import Limits, Unpacker
from conch_agent.boot import read_boot_id
from conch_agent.cache import Cache, CachedSource, CacheUnusableError
from conch_agent.disk import check_space
from conch_agent.download import Progress
from conch_agent.fetch import Fetch, translate_disk_errors
from conch_agent.folders import delete_tree
from conch_agent.sources.base import Archives, Item, Listing, Source
from conch_agent.sources.local import LocalSource
from conch_agent.threads import run_in_thread

_CACHE_STEP: Final = 64 * 1024 * 1024  # bytes for which space is made at once: the cache's files are counted each time
_STEP_SECONDS: Final = 0.2  # in a thread, which a cancellation waits for


@dataclass
class Unpacking:
    """Fetches and unpacks the archives of a source.

    Attributes:
        source: The source.
        folder: The model's download folder; with a cache, on the file system of the cache.
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
        progress: Counts the bytes of archives.
        cache: The cache that several pods share; None: the files are in the folder alone.
    """

    source: Source
    folder: Path
    max_bytes: int = 0
    progress: Progress = field(default_factory=Progress)
    cache: Cache | None = None
    _reserved: int = 0

    async def run(self, listing: Listing) -> tuple[Source, Listing]:
        """Return the source of what the archives hold and of the files beside them, and its files.

        Args:
            listing: The files and archives of the source.

        Raises:
            Failure: The archives cannot be fetched, or are refused.
            CacheUnusableError: The cache cannot take what they hold.
        """
        if not listing.archives:
            return self.source, listing
        with translate_disk_errors(self.source.uri, self.cache):
            if self.cache:
                source = await self._find_or_unpack(listing, listing.archives, self.cache)
            else:
                source = await self._unpack(listing, listing.archives)
            return source, await source.list_files()

    async def _find_or_unpack(self, listing: Listing, archives: Archives, cache: Cache) -> Source:
        """Return the source of what this or another pod has unpacked into the cache."""
        key = hashlib.sha256(f"{self.source.uri} {listing.identity}".encode()).hexdigest()
        async with cache.hold_archives(key):
            if not (items := await run_in_thread(cache.find_archives, key)):
                await self._share(await self._unpack(listing, archives), cache, key)
                items = await run_in_thread(cache.find_archives, key)
        return CachedSource(self.source.uri, items)

    def clear(self) -> None:
        """Delete archives, and what was unpacked of them: the model's files have links of their own."""
        self._marker.unlink(missing_ok=True)
        for folder in (self._archives, self._beside, self._unpacked):
            delete_tree(folder)

    @property
    def _archives(self) -> Path:
        return self.folder / "archives"

    @property
    def _beside(self) -> Path:
        return self.folder / "beside"

    @property
    def _unpacked(self) -> Path:
        return self.folder / "unpacked"

    @property
    def _marker(self) -> Path:
        """The file that states what was unpacked, so that a retry after a failure of the model unpacks nothing."""
        return self.folder / "unpacked.txt"

    async def _unpack(self, listing: Listing, archives: Archives) -> LocalSource:
        unpacked, mark = self._unpacked, f"{self.source.uri} {listing.identity} {read_boot_id()}"
        source = LocalSource(self.source.uri, unpacked, unpacked)
        if await run_in_thread(_read, self._marker) == mark:
            return source
        beside = await self._fetch(listing.items, self._beside) if listing.items else self._beside
        fetched = await self._fetch(archives.items, self._archives)
        await run_in_thread(self._prepare)
        unpacker = Unpacker(self.source.uri, archives, unpacked, Limits(self.max_bytes, self._reserve))
        for item in listing.items:
            await run_in_thread(unpacker.add, str(item.path), beside / item.path)
        steps = unpacker.run([fetched / item.path for item in archives.items])
        while not await run_in_thread(_advance, steps):
            pass
        await run_in_thread(self._marker.write_text, mark)
        return source

    async def _fetch(self, items: tuple[Item, ...], folder: Path) -> Path:
        fetch = Fetch(self.source, folder, self.max_bytes, self.progress, self.cache)
        return (await fetch.run(Listing(items))).files

    def _prepare(self) -> None:
        self._marker.unlink(missing_ok=True)
        delete_tree(self._unpacked)
        self._unpacked.mkdir()

    def _reserve(self, what: str, size: int, before: int) -> None:
        """Refuse a member that does not fit; in the cache, delete for it what no pod uses."""
        if self.cache:
            if size > self._reserved:
                self._reserved = self._reserve_in_cache(self.cache, size, before)
            self._reserved -= size
            return
        check_space(f"{what} of {size} bytes", size, self.folder)

    def _reserve_in_cache(self, cache: Cache, size: int, before: int) -> int:
        """Make space for a member, and for those after it if they fit; return the bytes that are free."""
        try:
            self.progress.evicted += cache.make_space(size + _CACHE_STEP, before)
        except CacheUnusableError:
            self.progress.evicted += cache.make_space(size, before)
            return size
        return size + _CACHE_STEP

    async def _share(self, unpacked: LocalSource, cache: Cache, key: str) -> None:
        """Make blobs of what was unpacked, and then record it."""
        records = {}
        for item in (await unpacked.list_files()).items:
            records[str(item.path)] = await run_in_thread(cache.add, Path(item.key))
        await run_in_thread(cache.write_archives, key, records)


def _advance(steps: Iterator[None]) -> bool:
    """Run steps for a while; return True if none are left."""
    end = time.monotonic() + _STEP_SECONDS
    return all(time.monotonic() < end for _ in steps)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
