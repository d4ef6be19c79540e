"""The files of the cache, as one pod sees them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from conch_agent.cache.blobs import Blobs
from conch_agent.cache.errors import CacheUnusableError
from conch_agent.cache.last import LastContent, read_last, write_last
from conch_agent.cache.locks import hold
from conch_agent.cache.space import LONGEST_CONTENT, LONGEST_NAME, Folders, delete_part, delete_unused
from conch_agent.download import Download, Part, Progress
from conch_agent.reasons import Failure
from conch_agent.record import Record, compute_digest, hash_prefix, read_record, read_text, replace_text
from conch_agent.sources.base import Item, parse_path
from conch_agent.threads import run_in_thread
from conch_contract.parsing import parse_json

_SHA256: Final = "sha256:"
_HEX: Final = frozenset("0123456789abcdef")


class Cache:
    """The cache."""

    def __init__(self, folders: Folders, pod: str, max_bytes: int) -> None:
        """Create the interface to a cache, of which all folders exist.

        Args:
            folders: Its folders.
            pod: Name of the pod's own folder.
            max_bytes: Size that it may have; 0: the file system is the limit.
        """
        self.folder = folders.pods / pod
        self._folders = folders
        self._blobs = Blobs(folders.blobs)
        self._max_bytes = max_bytes

    async def fetch(self, item: Item, download: Download, target: Path) -> Record:
        """Link a file into a folder of the pod, after this or another pod has downloaded it; return its record.

        Args:
            item: The file.
            download: The download of its source.
            target: The path of the link, which is replaced.

        Raises:
            Failure: The file cannot be downloaded.
            OSError: It cannot be stored or linked.
        """
        part, is_hit = self._get_part(item, download.source.uri), True
        if not (record := await run_in_thread(self._find_and_link, item, part, target)):
            waiting = _Waiting(download.progress, part)
            async with hold(part.file, waiting.note):
                waiting.forget()
                record = await run_in_thread(self._find_and_link, item, part, target)
                if not record:
                    record = await download.run(item, part)
                    download.progress.fetched -= record.offset
                    is_hit = False
                    await run_in_thread(self._blobs.add, part.file, record, target)
                else:
                    await run_in_thread(part.file.unlink, missing_ok=True)  # the lock has created it
        download.progress.fetched += record.offset
        download.progress.hits += is_hit
        download.progress.misses += not is_hit
        return record

    def _find_and_link(self, item: Item, part: Part, target: Path) -> Record | None:
        """Link the blob of a file and return its record; None: there is none."""
        record = self._find(item, part)
        try:
            if record:
                self._blobs.link(record.sha256, target)
        except FileNotFoundError:  # deleted meanwhile
            return None
        if record:
            with suppress(OSError):
                delete_part(part.file)  # of an agent that was killed after another one had the file
        return record

    def make_space_for(self, items: Collection[Item], uri: str) -> int:
        """Delete what no pod uses until the files of a source fit; return the bytes that were deleted.

        Args:
            items: The files.
            uri: The storageUri.

        Raises:
            CacheUnusableError: They do not fit.
        """
        missing, needed = 0, set[Path]()
        for item in items:
            part = self._get_part(item, uri)
            if record := self._find(item, part):
                needed.add(self._blobs.get_path(record.sha256))
            else:
                there = part.file.stat().st_size if part.file.exists() else 0
                missing += max(0, (item.size or 0) - there)
                needed.add(part.file)
        return delete_unused(self._folders, self.folder, missing, self._max_bytes, needed) if missing else 0

    def make_space(self, missing: int, beside: int) -> int:
        """Delete what no pod uses until so many bytes are free; return the bytes that were deleted.

        Args:
            missing: The bytes that are to be free.
            beside: Bytes of this pod's files that are no blobs yet.

        Raises:
            CacheUnusableError: What is in use leaves less.
        """
        return delete_unused(self._folders, self.folder, missing, self._max_bytes, beside=beside)

    def forget(self, items: Iterable[Item], uri: str) -> None:
        """Delete the records of files of a source, after which they are downloaded again.

        Args:
            items: The files.
            uri: The storageUri.
        """
        for item in items:
            self._get_part(item, uri).record.unlink(missing_ok=True)

    @asynccontextmanager
    async def hold_archives(self, key: str) -> AsyncGenerator[None, None]:
        """Have archives for this pod alone, after another one has unpacked them.

        Args:
            key: Key of the archives, in hexadecimal.
        """
        part = self._folders.parts / f"{key[:32]}.part"
        async with hold(part, _ignore):
            try:
                yield
            finally:
                part.unlink(missing_ok=True)

    def add(self, file: Path) -> Record:
        """Make a blob of a file that this pod has in its folder; return its record.

        Args:
            file: The file, which does not change any more.
        """
        size = file.stat().st_size
        state = hash_prefix(file, size)
        sha256 = state.hexdigest() if state else ""
        self._blobs.share(file, sha256, size)
        return Record("", size, size, sha256, done=True)

    def write_archives(self, key: str, records: Mapping[str, Record]) -> None:
        """Write what archives hold, so that a pod finds it without them.

        Args:
            key: Key of the archives, in hexadecimal.
            records: The records of the files by path.
        """
        digest = compute_digest({path: record.sha256 for path, record in records.items()})
        self.write_content(digest, records)
        temporary = self.folder / f"{key}.new"
        replace_text(self._folders.archives / key, temporary, digest.removeprefix(_SHA256))

    def find_archives(self, key: str) -> tuple[Item, ...]:
        """Return the files that archives hold, if all of them are there; else none. Keys are as in `find_content`.

        Args:
            key: Key of the archives, in hexadecimal.
        """
        try:
            return self.find_content(read_text(self._folders.archives / key, LONGEST_NAME))
        except (OSError, ValueError):
            return ()

    def write_content(self, digest: str, records: Mapping[str, Record]) -> None:
        """Write the files of a model's content, so that a pod finds them without the source.

        Args:
            digest: Digest of the content.
            records: The records of its files by path.
        """
        files = {path: [record.sha256, record.offset] for path, record in records.items()}
        target = self._folders.contents / digest.removeprefix(_SHA256)
        temporary = self.folder / f"{target.name}.{secrets.token_hex(8)}"  # two models may have the same content
        replace_text(target, temporary, json.dumps(files))

    def write_last(self, key: str, last: LastContent) -> None:
        """Record the content that a source has had.

        Args:
            key: Key of the source, in hexadecimal.
            last: The content, all files of which are blobs.

        Raises:
            OSError: It cannot be written.
        """
        write_last(self._folders.sources / key, self.folder, last)

    def find_last(self, key: str) -> LastContent | None:
        """Return the content that a source had when it was fetched last; None: it is not known.

        Args:
            key: Key of the source, in hexadecimal.
        """
        return read_last(self._folders.sources / key)

    def find_content(self, digest: str) -> tuple[Item, ...]:
        """Return the files of a content, if all of them are there; else none. The path of a blob is the item's key.

        Args:
            digest: Digest of the content.

        Raises:
            CacheUnusableError: A blob cannot be read.
        """
        name = digest.removeprefix(_SHA256)
        if len(name) != hashlib.sha256().digest_size * 2 or not _HEX.issuperset(name):
            return ()
        try:
            files = {str(path): (str(sha256), int(size)) for path, (sha256, size) in self._read_content(name).items()}
            items = tuple(
                Item(parse_path(path, digest), size, sha256, str(self._blobs.get_path(sha256)), digest=_SHA256 + sha256)
                for path, (sha256, size) in files.items()
            )
        except (OSError, ValueError, TypeError, AttributeError, Failure):
            return ()
        if compute_digest({path: sha256 for path, (sha256, _) in files.items()}) != _SHA256 + name:
            return ()
        try:
            return items if all(self._blobs.has(sha256, size) for sha256, size in files.values()) else ()
        except OSError as error:
            raise CacheUnusableError.from_os_error(error) from error

    def _read_content(self, name: str) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = parse_json(read_text(self._folders.contents / name, LONGEST_CONTENT))
        return found

    def _get_part(self, item: Item, uri: str) -> Part:
        """Return the paths of a file of a source, which no other content of the file has.

        Of a file without a tag each pod has its own: what another one has downloaded may be another content.
        """
        fields: tuple[str, ...] = (str(item.path), item.content, str(item.size))
        if not item.content:
            owner = "" if item.tag or item.digest else self.folder.name
            fields = (uri, str(item.path), item.key, item.version, item.tag, str(item.size), owner)
        key = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:32]
        return Part(self._folders.parts / f"{key}.part", self._folders.parts / f"{key}.json")

    def _find(self, item: Item, part: Part) -> Record | None:
        """Return the record of a file whose blob is there; None: it has to be downloaded."""
        if item.digest.startswith(_SHA256) and item.size is not None:
            sha256 = item.digest.removeprefix(_SHA256)
            if self._blobs.has(sha256, item.size):
                return Record(item.mark, item.size, item.size, sha256, done=True)
        record = read_record(part.record) if item.mark else None
        if not record or not record.done or (record.tag, record.size) != (item.mark, item.size):
            return None
        return record if self._blobs.has(record.sha256, record.offset) else None


def _ignore() -> None:
    """Note nothing of another agent that unpacks."""


class _Waiting:
    """The progress of another agent, which this one reports as its own while it waits."""

    def __init__(self, progress: Progress, part: Part) -> None:
        self._progress = progress
        self._part = part
        self._noted = 0
        self._has_waited = False

    def note(self) -> None:
        """Count what the other agent has."""
        record = read_record(self._part.record)
        self.forget()
        self._progress.waits += not self._has_waited
        self._has_waited = True
        self._noted = record.offset if record else 0
        self._progress.fetched += self._noted

    def forget(self) -> None:
        """Count nothing of it."""
        self._progress.fetched -= self._noted
        self._noted = 0
