"""Files in an object store: their list, and their versions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import obstore

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Entry, Item, Listing, build_listing, parse_path
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.sources.listing_limit import ListingLimit
from conch_agent.sources.object_reads import build_changed
from conch_agent.sources.store_client import Bucket, build_tag, is_same_tag, read_meta
from conch_agent.sources.store_connection import StoreConnection
from conch_agent.sources.store_errors import classify_version
from conch_agent.tasks import run_all
from conch_contract.object_versions import select_recordable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_HEADS_AT_ONCE: Final = 8

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_bucket(uri: str) -> str:
    """Return the bucket that a URI names.

    Args:
        uri: The storageUri.

    Raises:
        Failure: NotFound: it names none.
    """
    parts = urlsplit(uri)
    form = f"{parts.scheme}://bucket/prefix"
    if not parts.netloc:
        raise Failure(Reason.NOT_FOUND, f"{uri} names no bucket: write {form}.")
    if not _BUCKET.fullmatch(parts.netloc):
        message = f"{uri}: {parts.netloc!r} cannot be a bucket's name. Write {form}, without user or port."
        raise Failure(Reason.NOT_FOUND, message)
    return parts.netloc


class ObjectStoreSource:
    """`scheme://bucket/prefix`: all objects below the prefix, or the one object of that key."""

    def __init__(self, uri: str, path: str, bucket: Bucket) -> None:
        """Create the source.

        Args:
            uri: The storageUri.
            path: Its part after the bucket: a prefix, or the key of an object.
            bucket: Its bucket, with the settings of the storage Secret.
        """
        if "//" in path.rstrip("/"):
            message = f"{uri} has a folder without a name ('//'). Write one slash, or rename the folder in the store."
            raise Failure(Reason.UNSAFE_PATH, message)
        self.uri = uri
        self._prefix = path.strip("/")
        self._may_be_object = not path.endswith("/")
        self._terms = bucket.terms
        self._connection = StoreConnection(uri, bucket)

    async def list_files(self) -> Listing:
        """Return the objects below the prefix, or the object of that key, as in Source."""
        async with ListingLimit(self.uri).run() as limit:
            return await self._list(limit)

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the version of each object. Where the first one has none, it is empty after one request.

        Args:
            listing: The objects.

        Raises:
            Failure: SourceChanged for an object that has changed since the listing.
        """
        if not select_recordable({str(item.path): "-" for item in listing.items}):
            return {}  # they are too long, whatever they are
        semaphore = asyncio.Semaphore(_HEADS_AT_ONCE)
        found: dict[str, str] = {}

        async def find(store: ObjectStore, item: Item) -> None:
            async with semaphore:
                found[self._make_relative(item.key)] = item.version or await self._read_version(store, item)

        first, *others = listing.items
        async with self._connection.open() as bucket:
            await find(bucket.store, first)
            if all(found.values()):
                await run_all(find(bucket.store, item) for item in others)
        return found if all(found.values()) else {}

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the objects in the given versions, as in VersionedSource.

        Args:
            versions: Versions by path below the prefix; the path of the object of that key is empty.
        """
        semaphore = asyncio.Semaphore(_HEADS_AT_ONCE)
        items: list[Item] = []

        async def add(store: ObjectStore, path: str, version: str) -> None:
            key = f"{self._prefix}/{path}".strip("/")
            name = parse_path(path or PurePosixPath(key).name, self.uri)
            async with semaphore:
                try:
                    meta = await read_meta(store, key, version)
                except Exception as error:
                    if failure := classify_version(error, str(name), version, self._terms):
                        raise failure from error
                    raise
            items.append(Item(name, meta["size"], build_tag(meta), key, version))

        async with self._connection.open() as bucket:
            await run_all(add(bucket.store, path, version) for path, version in versions.items())
        return Listing(tuple(sorted(items, key=lambda item: item.path)))

    async def _list(self, limit: ListingLimit) -> Listing:
        found: list[Entry] = []
        async with self._connection.open() as bucket:
            async for chunk in obstore.list(bucket.store, self._prefix or None):
                found += [self._build_entry(meta) for meta in chunk]
                limit.add(len(chunk))
            found = await self._remove_markers(bucket.store, [entry for entry in found if entry.name])
            if (
                not found
                and self._prefix
                and self._may_be_object
                and (item := await self._read_head(bucket.store, self._prefix))
            ):
                return Listing((item,))
        return build_listing(found, self.uri)

    async def _remove_markers(self, store: ObjectStore, found: list[Entry]) -> list[Entry]:
        """Return the entries without folder markers that hold no other key.

        The client removes the slash of such a key, and returns it like an empty file. The store has an object of the
        shorter key only if there is a file.
        """
        folders = {str(parent) for entry in found for parent in PurePosixPath(entry.name).parents}
        candidates = [entry for entry in found if not entry.size and entry.name not in folders]
        semaphore = asyncio.Semaphore(_HEADS_AT_ONCE)
        markers: set[str] = set()

        async def check(entry: Entry) -> None:
            async with semaphore:
                if not is_excluded_path(entry.name) and await self._read_head(store, entry.key) is None:
                    markers.add(entry.key)

        await run_all(check(entry) for entry in candidates)
        return [entry for entry in found if entry.key not in markers]

    def connect(self) -> AbstractAsyncContextManager[object]:
        """Keep a client of the bucket, as in ConnectedSource."""
        return self._connection.open()

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the object's bytes in order, as in Source."""
        async with self._connection.open() as bucket, aclosing(bucket.reads.read(item, offset)) as blocks:
            async for block in blocks:
                yield block

    async def read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        """Yield some of the object's bytes in order, as in RangedSource."""
        async with self._connection.open() as bucket, aclosing(bucket.reads.read_range(item, start, end)) as blocks:
            async for block in blocks:
                yield block

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: objects are not local."""
        return None

    async def _read_head(self, store: ObjectStore, key: str) -> Item | None:
        try:
            meta = await obstore.head_async(store, key)
        except FileNotFoundError:
            return None
        if not meta["e_tag"]:
            remedy = self._terms.wrong_endpoint
            raise Failure(Reason.FETCH_FAILED, f"{self.uri}: the server answered {key!r} without an ETag. {remedy}")
        return Item(parse_path(PurePosixPath(key).name, self.uri), meta["size"], meta["e_tag"], key)

    async def _read_version(self, store: ObjectStore, item: Item) -> str:
        """Return the version of an unchanged object; empty where the bucket has no versioning."""
        try:
            meta = await read_meta(store, item.key)
        except FileNotFoundError as error:
            raise build_changed(self.uri, item) from error
        if not is_same_tag(build_tag(meta), item.tag) or meta["size"] != item.size:
            raise build_changed(self.uri, item)
        return meta["version"] or ""

    def _build_entry(self, meta: ObjectMeta) -> Entry:
        return Entry(self._make_relative(meta["path"]), meta["size"], build_tag(meta), meta["path"])

    def _make_relative(self, key: str) -> str:
        return key[len(self._prefix) :].removeprefix("/") if self._prefix else key
