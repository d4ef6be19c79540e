"""Files in an S3 store, read by ranges in parallel and handed on in order."""

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
from conch_agent.sources.base import Buffer, Found, Item, Listing, Location, build_listing, refuse_endless, safe_path
from conch_agent.sources.connection import Problem, check_host, find_problem, speaks_tls, trust
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.sources.s3_client import REGION, open_store, read_meta
from conch_agent.sources.s3_errors import (
    NO_S3,
    classify,
    classify_version,
    is_certificate_refusal,
    is_client_error,
    is_transport,
    unreachable,
)
from conch_agent.sources.s3_settings import KEYS, Endpoint, parse_settings
from conch_agent.sources.store_proxy import StoreProxy, plain_url
from conch_agent.tasks import run_all

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

__all__ = ["KEYS", "S3Source", "open_source"]

CHUNK: Final = 4 * 1024 * 1024
WINDOW: Final = 4  # chunks under way for one file: memory is bounded by CHUNK x WINDOW x files at once

_HEADS_AT_ONCE: Final = 8

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_T = TypeVar("_T")


def open_source(location: Location) -> S3Source:
    """Return the objects; raises Failure where the bucket or a value of the Secret cannot be right."""
    return S3Source(location.uri, location.secret)


class S3Source:
    """`s3://bucket/prefix`: all objects below the prefix, or the one object of that key."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._single = not parts.path.endswith("/")
        if not self._bucket:
            raise Failure(Reason.NOT_FOUND, f"{uri} names no bucket: write s3://bucket/prefix.")
        if not _BUCKET.fullmatch(self._bucket):
            message = (
                f"{uri}: {self._bucket!r} cannot be a bucket's name. Write s3://bucket/prefix, without user or port."
            )
            raise Failure(Reason.NOT_FOUND, message)
        self._settings = parse_settings(secret)
        self._refused = ""  # why a connection was not made
        self._relayed = False  # True once OpenSSL is known to accept a certificate that the client refuses

    async def listing(self) -> Listing:
        """Return the objects below the prefix, or the one object of that key."""
        return await self._connected(self._list)

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the version of each object; none where the bucket has no versioning, which one request tells.

        Raises:
            Failure: SourceChanged for an object that is another one than when it was listed.
        """
        gate = asyncio.Semaphore(_HEADS_AT_ONCE)
        found: dict[str, str] = {}

        async def find(store: S3Store, item: Item) -> None:
            async with gate:
                found[self._relative(item.key)] = item.version or await self._present_version(store, item)

        first, *others = listing.items
        async with self._client() as store:
            await self._guarded(find(store, first))
            if all(found.values()):
                await self._guarded(run_all(find(store, item) for item in others))
        return found if all(found.values()) else {}

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the objects in these versions, by path below the prefix; empty: the one object of that key."""
        return await self._connected(lambda: self._list_versions(versions))

    async def _list_versions(self, versions: Mapping[str, str]) -> Listing:
        gate = asyncio.Semaphore(_HEADS_AT_ONCE)
        items: list[Item] = []

        async def add(store: S3Store, path: str, version: str) -> None:
            key = f"{self._prefix}/{path}".strip("/")
            name = safe_path(path or PurePosixPath(key).name, self.uri)
            async with gate:
                try:
                    meta = await read_meta(store, key, version)
                except Exception as error:
                    if failure := classify_version(error, str(name), version):
                        raise failure from error
                    raise
            items.append(Item(name, meta["size"], _tag(meta), key, version))

        async with self._client() as store:
            await run_all(add(store, path, version) for path, version in versions.items())
        return Listing(tuple(sorted(items, key=lambda item: item.path)))

    async def _connected(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do the first work with the store: through the proxy where the client alone refuses the certificate."""
        self._refused = ""
        await self._check_endpoint()
        try:
            return await work()
        except Failure:
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            if not await self._is_accepted_by_openssl(error):
                raise await self._failure(error) from error
        self._relayed = True
        return await self._guarded(work())

    async def _check_endpoint(self) -> None:
        endpoint = self._settings.endpoint
        try:
            if endpoint:
                await check_host(endpoint.host, endpoint.port)
        except ValueError as error:
            message = f"{self.uri}: AWS_ENDPOINT_URL is {endpoint.url if endpoint else ''}, but {error}. Correct it."
            raise Failure(Reason.UNREACHABLE, message) from None

    async def _list(self) -> Listing:
        found: list[Found] = []
        async with self._client() as store:
            async for chunk in obstore.list(store, self._prefix or None):
                found += [self._found(meta) for meta in chunk]
                refuse_endless(len(found), self.uri)
            found = await self._without_markers(store, [each for each in found if each.name])
            if not found and self._prefix and self._single and (item := await self._head(store, self._prefix)):
                return Listing((item,))
        return build_listing(found, self.uri)

    async def _without_markers(self, store: S3Store, found: list[Found]) -> list[Found]:
        """Return the entries without folder markers that hold no other key.

        The client cuts the slash off such a key, so that it looks like an empty file. The store knows an object by
        the shorter key only if there is a file.
        """
        folders = {str(parent) for each in found for parent in PurePosixPath(each.name).parents}
        doubtful = [each for each in found if not each.size and each.name not in folders]
        gate = asyncio.Semaphore(_HEADS_AT_ONCE)
        markers: set[str] = set()

        async def check(each: Found) -> None:
            async with gate:
                if not is_excluded_path(each.name) and await self._head(store, each.key) is None:
                    markers.add(each.key)

        await run_all(check(each) for each in doubtful)
        return [each for each in found if each.key not in markers]

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the object's chunks in order while the next ones are under way."""
        size = item.size or 0
        starts = iter(range(offset, size, CHUNK))
        under_way: deque[asyncio.Task[Buffer]] = deque()

        async with self._client() as store:

            def begin(start: int) -> None:
                work = self._guarded(self._range(store, item, start, min(start + CHUNK, size)))
                under_way.append(asyncio.create_task(work))

            try:
                for start in islice(starts, WINDOW):
                    begin(start)
                while under_way:
                    chunk = await under_way.popleft()
                    for start in islice(starts, 1):
                        begin(start)
                    yield chunk
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    def local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Objects are never local."""
        return None

    async def _range(self, store: S3Store, item: Item, start: int, end: int) -> Buffer:
        try:
            options: GetOptions = {"range": (start, end), "if_match": item.tag or None}
            if item.version:
                options["version"] = item.version
            answer = await obstore.get_async(store, item.key, options=options)
            if (answer.meta["e_tag"] or "") != item.tag or answer.meta["size"] != item.size:
                raise _changed(self.uri, item)
            content = memoryview(await answer.bytes_async())
        except (FileNotFoundError, PreconditionError) as error:
            raise _changed(self.uri, item) from error
        if len(content) != end - start:
            message = f"{self.uri}: the store sent {len(content)} bytes of {item.key} where {end - start} were asked."
            raise Failure(Reason.FETCH_FAILED, message)
        return content

    async def _head(self, store: S3Store, key: str) -> Item | None:
        try:
            meta = await obstore.head_async(store, key)
        except FileNotFoundError:
            return None
        if not meta["e_tag"]:
            raise Failure(Reason.FETCH_FAILED, f"{self.uri}: the server answered {key!r} without an ETag. {NO_S3}")
        return Item(safe_path(PurePosixPath(key).name, self.uri), meta["size"], meta["e_tag"], key)

    async def _present_version(self, store: S3Store, item: Item) -> str:
        """Return the version of the object that was listed; empty where the bucket has no versioning."""
        try:
            meta = await read_meta(store, item.key)
        except FileNotFoundError as error:
            raise _changed(self.uri, item) from error
        if _tag(meta) != item.tag or meta["size"] != item.size:
            raise _changed(self.uri, item)
        return meta["version"] or ""

    def _found(self, meta: ObjectMeta) -> Found:
        return Found(self._relative(meta["path"]), meta["size"], _tag(meta), meta["path"])

    def _relative(self, key: str) -> str:
        return key[len(self._prefix) :].removeprefix("/") if self._prefix else key

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[S3Store, None]:
        settings, store = self._settings, self._endpoint()
        context = trust(settings.authorities) if self._relayed else None
        url = plain_url(store) if self._relayed else settings.endpoint.url if settings.endpoint else ""
        proxy = StoreProxy(store, self._note_refusal, context=context, has_token=bool(settings.session_token))
        async with proxy.run():
            yield open_store(self._bucket, settings, url, proxy.url)

    def _note_refusal(self, reason: str) -> None:
        self._refused = reason

    def _endpoint(self) -> Endpoint:
        """Return the address of the store, Amazon's where the Secret names none."""
        host = f"s3.{self._settings.region or REGION}.amazonaws.com"
        return self._settings.endpoint or Endpoint(f"https://{host}", host, 443)

    async def _guarded(self, work: Awaitable[_T]) -> _T:
        """Await the work; a failure of the client becomes the user's."""
        try:
            return await work
        except Failure:
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            raise await self._failure(error) from error

    async def _is_accepted_by_openssl(self, error: Exception) -> bool:
        """Return True if the client refused a certificate of the endpoint that OpenSSL accepts."""
        endpoint = self._settings.endpoint
        if not endpoint or not endpoint.secure or not is_certificate_refusal(error):
            return False
        return await find_problem(endpoint.host, endpoint.port, trust(self._settings.authorities)) is None

    async def _failure(self, error: Exception) -> Failure:
        """Return the failure; where the store was not reached, after a connection that tells why."""
        settings, endpoint = self._settings, self._endpoint()
        if refused := self._refused:
            self._refused = ""
            message = f"{self.uri}: {refused}. Correct the store, or AWS_ENDPOINT_URL in the storage Secret."
            return Failure(Reason.FETCH_FAILED, message)
        named = settings.endpoint.url if settings.endpoint else ""
        if is_transport(error):
            context = trust(settings.authorities) if endpoint.secure else None
            if problem := await find_problem(endpoint.host, endpoint.port, context):
                return unreachable(self.uri, named, problem)
            if context is None and await speaks_tls(endpoint.host, endpoint.port):
                what = f"{endpoint.host}:{endpoint.port} speaks TLS"
                return unreachable(self.uri, named, Problem(what, "Write AWS_ENDPOINT_URL with https://"))
        return classify(error, self.uri, self._bucket, named, signed=settings.signed, unknown=settings.unknown)


def _tag(meta: ObjectMeta) -> str:
    return meta["e_tag"] or str(meta["last_modified"])


def _changed(uri: str, item: Item) -> Failure:
    return Failure(Reason.CHANGED, f"{uri}: {item.path} changed while it was fetched; starting over with the new one.")
