"""Files in an S3 store, which are read in parallel ranges and yielded in order."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import PreconditionError
from obstore.store import S3Store

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Entry, Item, Listing, Location, build_listing, parse_path, refuse_endless
from conch_agent.sources.connection import Problem, build_context, check_host, find_problem, has_tls
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.sources.s3_client import REGION, open_store, read_meta
from conch_agent.sources.s3_errors import (
    NO_S3,
    build_unreachable,
    classify,
    classify_version,
    is_certificate_refusal,
    is_client_error,
    is_transport,
)
from conch_agent.sources.s3_settings import KEYS, parse_settings
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_proxy import StoreProxy, plain_url
from conch_agent.tasks import run_all
from conch_contract.object_versions import select_recordable

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

__all__ = ["KEYS", "S3Source", "open_source"]

CHUNK: Final = 4 * 1024 * 1024
WINDOW: Final = 4  # parallel chunks of a file: memory is bounded by CHUNK x WINDOW x parallel files

_HEADS_AT_ONCE: Final = 8

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_T = TypeVar("_T")


def open_source(location: Location) -> S3Source:
    """Return the source of a bucket and prefix.

    Args:
        location: The location.

    Raises:
        Failure: The bucket or a value of the Secret is invalid.
    """
    return S3Source(location.uri, location.secret)


class S3Source:
    """`s3://bucket/prefix`: all objects below the prefix, or the one object of that key."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._may_be_object = not parts.path.endswith("/")
        if not self._bucket:
            raise Failure(Reason.NOT_FOUND, f"{uri} names no bucket: write s3://bucket/prefix.")
        if not _BUCKET.fullmatch(self._bucket):
            message = (
                f"{uri}: {self._bucket!r} cannot be a bucket's name. Write s3://bucket/prefix, without user or port."
            )
            raise Failure(Reason.NOT_FOUND, message)
        self._settings = parse_settings(secret)
        self._refusal = ""  # the reason why the proxy refused a connection
        self._has_relay = False  # True after OpenSSL has accepted a certificate that the client refuses

    async def list_files(self) -> Listing:
        """Return the objects below the prefix, or the object of that key, as in Source."""
        return await self._run_first(self._list)

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the version of each object. Without versioning of the bucket it is empty after one request.

        Args:
            listing: The objects.

        Raises:
            Failure: SourceChanged for an object that has changed since the listing.
        """
        if not select_recordable({str(item.path): "-" for item in listing.items}):
            return {}  # they are too long, whatever they are
        semaphore = asyncio.Semaphore(_HEADS_AT_ONCE)
        found: dict[str, str] = {}

        async def find(store: S3Store, item: Item) -> None:
            async with semaphore:
                found[self._make_relative(item.key)] = item.version or await self._read_version(store, item)

        first, *others = listing.items
        async with self._open_client() as store:
            await self._run_guarded(find(store, first))
            if all(found.values()):
                await self._run_guarded(run_all(find(store, item) for item in others))
        return found if all(found.values()) else {}

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the objects in the given versions, as in VersionedSource.

        Args:
            versions: Versions by path below the prefix; the path of the object of that key is empty.
        """
        return await self._run_first(lambda: self._list_versions(versions))

    async def _list_versions(self, versions: Mapping[str, str]) -> Listing:
        semaphore = asyncio.Semaphore(_HEADS_AT_ONCE)
        items: list[Item] = []

        async def add(store: S3Store, path: str, version: str) -> None:
            key = f"{self._prefix}/{path}".strip("/")
            name = parse_path(path or PurePosixPath(key).name, self.uri)
            async with semaphore:
                try:
                    meta = await read_meta(store, key, version)
                except Exception as error:
                    if failure := classify_version(error, str(name), version):
                        raise failure from error
                    raise
            items.append(Item(name, meta["size"], _build_tag(meta), key, version))

        async with self._open_client() as store:
            await run_all(add(store, path, version) for path, version in versions.items())
        return Listing(tuple(sorted(items, key=lambda item: item.path)))

    async def _run_first(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run the first requests to the store. If only the client refuses the certificate, the proxy uses OpenSSL."""
        self._refusal = ""
        await self._check_endpoint()
        try:
            return await work()
        except Failure:
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            if not await self._is_accepted_by_openssl(error):
                raise await self._build_failure(error) from error
        self._has_relay = True
        return await self._run_guarded(work())

    async def _check_endpoint(self) -> None:
        endpoint = self._settings.endpoint
        try:
            if endpoint:
                await check_host(endpoint.host, endpoint.port)
        except ValueError as error:
            message = f"{self.uri}: AWS_ENDPOINT_URL is {endpoint.url if endpoint else ''}, but {error}. Correct it."
            raise Failure(Reason.UNREACHABLE, message) from None

    async def _list(self) -> Listing:
        found: list[Entry] = []
        async with self._open_client() as store:
            async for chunk in obstore.list(store, self._prefix or None):
                found += [self._build_entry(meta) for meta in chunk]
                refuse_endless(len(found), self.uri)
            found = await self._remove_markers(store, [entry for entry in found if entry.name])
            if (
                not found
                and self._prefix
                and self._may_be_object
                and (item := await self._read_head(store, self._prefix))
            ):
                return Listing((item,))
        return build_listing(found, self.uri)

    async def _remove_markers(self, store: S3Store, found: list[Entry]) -> list[Entry]:
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

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the object's chunks in order, as in Source. The next chunks are read in parallel."""
        size = item.size or 0
        starts = iter(range(offset, size, CHUNK))
        tasks: deque[asyncio.Task[Buffer]] = deque()

        async with self._open_client() as store:

            def start_read(start: int) -> None:
                work = self._run_guarded(self._read_range(store, item, start, min(start + CHUNK, size)))
                tasks.append(asyncio.create_task(work))

            try:
                for start in islice(starts, WINDOW):
                    start_read(start)
                while tasks:
                    chunk = await tasks.popleft()
                    for start in islice(starts, 1):
                        start_read(start)
                    yield chunk
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: objects are not local."""
        return None

    async def _read_range(self, store: S3Store, item: Item, start: int, end: int) -> Buffer:
        try:
            options: GetOptions = {"range": (start, end), "if_match": item.tag or None}
            if item.version:
                options["version"] = item.version
            answer = await obstore.get_async(store, item.key, options=options)
            if (answer.meta["e_tag"] or "") != item.tag or answer.meta["size"] != item.size:
                raise _build_changed(self.uri, item)
            content = memoryview(await answer.bytes_async())
        except (FileNotFoundError, PreconditionError) as error:
            raise _build_changed(self.uri, item) from error
        if len(content) != end - start:
            message = (
                f"{self.uri}: the store sent {len(content)} bytes of {item.key}, and {end - start} were requested; the "
                "agent retries."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        return content

    async def _read_head(self, store: S3Store, key: str) -> Item | None:
        try:
            meta = await obstore.head_async(store, key)
        except FileNotFoundError:
            return None
        if not meta["e_tag"]:
            raise Failure(Reason.FETCH_FAILED, f"{self.uri}: the server answered {key!r} without an ETag. {NO_S3}")
        return Item(parse_path(PurePosixPath(key).name, self.uri), meta["size"], meta["e_tag"], key)

    async def _read_version(self, store: S3Store, item: Item) -> str:
        """Return the version of an unchanged object; empty where the bucket has no versioning."""
        try:
            meta = await read_meta(store, item.key)
        except FileNotFoundError as error:
            raise _build_changed(self.uri, item) from error
        if _build_tag(meta) != item.tag or meta["size"] != item.size:
            raise _build_changed(self.uri, item)
        return meta["version"] or ""

    def _build_entry(self, meta: ObjectMeta) -> Entry:
        return Entry(self._make_relative(meta["path"]), meta["size"], _build_tag(meta), meta["path"])

    def _make_relative(self, key: str) -> str:
        return key[len(self._prefix) :].removeprefix("/") if self._prefix else key

    @asynccontextmanager
    async def _open_client(self) -> AsyncGenerator[S3Store, None]:
        settings, store = self._settings, self._get_endpoint()
        context = build_context(settings.authorities) if self._has_relay else None
        url = plain_url(store) if self._has_relay else settings.endpoint.url if settings.endpoint else ""
        proxy = StoreProxy(store, self._note_refusal, context=context, has_token=bool(settings.session_token))
        async with proxy.run():
            yield open_store(self._bucket, settings, url, proxy.url)

    def _note_refusal(self, reason: str) -> None:
        self._refusal = reason

    def _get_endpoint(self) -> Endpoint:
        """Return the address of the store, Amazon's where the Secret names none."""
        host = f"s3.{self._settings.region or REGION}.amazonaws.com"
        return self._settings.endpoint or Endpoint(f"https://{host}", host, 443)

    async def _run_guarded(self, work: Awaitable[_T]) -> _T:
        """Await the requests, and translate the client's errors into a Failure."""
        try:
            return await work
        except Failure:
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            raise await self._build_failure(error) from error

    async def _is_accepted_by_openssl(self, error: Exception) -> bool:
        """Return True if the client refused a certificate of the endpoint that OpenSSL accepts."""
        endpoint = self._settings.endpoint
        if not endpoint or not endpoint.is_secure or not is_certificate_refusal(error):
            return False
        return await find_problem(endpoint.host, endpoint.port, build_context(self._settings.authorities)) is None

    async def _build_failure(self, error: Exception) -> Failure:
        """Return the failure. If the store was not reached, the cause is that of another connection."""
        settings, endpoint = self._settings, self._get_endpoint()
        if refusal := self._refusal:
            self._refusal = ""
            message = f"{self.uri}: {refusal}. Correct the store, or AWS_ENDPOINT_URL in the storage Secret."
            return Failure(Reason.FETCH_FAILED, message)
        named = settings.endpoint.url if settings.endpoint else ""
        if is_transport(error):
            context = build_context(settings.authorities) if endpoint.is_secure else None
            if problem := await find_problem(endpoint.host, endpoint.port, context):
                return build_unreachable(self.uri, named, problem)
            if context is None and await has_tls(endpoint.host, endpoint.port):
                cause = f"{endpoint.host}:{endpoint.port} speaks TLS"
                return build_unreachable(self.uri, named, Problem(cause, "Write AWS_ENDPOINT_URL with https://"))
        return classify(error, self.uri, self._bucket, named, signed=settings.is_signed, unknown=settings.unknown)


def _build_tag(meta: ObjectMeta) -> str:
    return meta["e_tag"] or str(meta["last_modified"])


def _build_changed(uri: str, item: Item) -> Failure:
    return Failure(Reason.CHANGED, f"{uri}: {item.path} changed while it was fetched; the agent fetches the new one.")
