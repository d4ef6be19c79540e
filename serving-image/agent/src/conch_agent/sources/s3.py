"""Files in an S3 store, read by ranges in parallel and handed on in order."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Found, Item, Listing, build_listing, safe_path
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.sources.s3_settings import S3Settings, parse_settings
from conch_agent.tasks import run_all

CHUNK: Final = 4 * 1024 * 1024
WINDOW: Final = 4  # chunks under way for one file: memory is bounded by CHUNK x WINDOW x files at once

_HEADS_AT_ONCE: Final = 8

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "ExpiredToken",
        "InvalidToken",
        "AllAccessDisabled",
    }
)


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
        settings = parse_settings(secret)
        self._endpoint = settings.endpoint.url if settings.endpoint else ""
        try:
            self._store = _store(self._bucket, settings)
        except BaseError as error:
            raise self._failure(error) from error

    async def listing(self) -> Listing:
        """Return the objects below the prefix, or the one object of that key."""
        found: list[Found] = []
        try:
            async for chunk in obstore.list(self._store, self._prefix or None):
                found += [self._found(meta) for meta in chunk]
            found = await self._without_markers([each for each in found if each.name])
            if not found and self._prefix and self._single and (item := await self._head(self._prefix)):
                return Listing((item,))
        except BaseError as error:
            raise self._failure(error) from error
        return build_listing(found, self.uri)

    async def _without_markers(self, found: list[Found]) -> list[Found]:
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
                if not is_excluded_path(each.name) and await self._head(each.key) is None:
                    markers.add(each.key)

        await run_all(check(each) for each in doubtful)
        return [each for each in found if each.key not in markers]

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the object's chunks in order while the next ones are under way."""
        size = item.size or 0
        starts = iter(range(offset, size, CHUNK))
        under_way: deque[asyncio.Task[Buffer]] = deque()

        def begin(start: int) -> None:
            under_way.append(asyncio.create_task(self._range(item, start, min(start + CHUNK, size))))

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

    async def _range(self, item: Item, start: int, end: int) -> Buffer:
        try:
            answer = await obstore.get_async(
                self._store, item.key, options={"range": (start, end), "if_match": item.tag or None}
            )
            if (answer.meta["e_tag"] or "") != item.tag or answer.meta["size"] != item.size:
                raise _changed(self.uri, item)
            content = memoryview(await answer.bytes_async())
        except (FileNotFoundError, PreconditionError) as error:
            raise _changed(self.uri, item) from error
        except BaseError as error:
            raise self._failure(error) from error
        if len(content) != end - start:
            message = f"{self.uri}: the store sent {len(content)} bytes of {item.key} where {end - start} were asked."
            raise Failure(Reason.FETCH_FAILED, message)
        return content

    async def _head(self, key: str) -> Item | None:
        try:
            meta = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None
        return Item(safe_path(PurePosixPath(key).name, self.uri), meta["size"], meta["e_tag"] or "", key)

    def _found(self, meta: Any) -> Found:
        key = meta["path"]
        relative = key[len(self._prefix) :].removeprefix("/") if self._prefix else key
        return Found(relative, meta["size"], meta["e_tag"] or str(meta["last_modified"]), key)

    def _failure(self, error: Exception) -> Failure:
        return classify(error, self.uri, self._bucket, self._endpoint)


def _store(bucket: str, settings: S3Settings) -> S3Store:
    # Without credentials the client would ask the cloud's metadata address for some.
    config: dict[str, Any] = {"AWS_REGION": settings.region or "us-east-1", "AWS_SKIP_SIGNATURE": not settings.signed}
    optional = {
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "AWS_SESSION_TOKEN": settings.session_token,
        "AWS_ENDPOINT_URL": settings.endpoint and settings.endpoint.url,
        "AWS_ALLOW_HTTP": settings.allow_http,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": settings.virtual_hosted,
        "AWS_REQUEST_PAYER": settings.request_payer,
    }
    config |= {key: value for key, value in optional.items() if value}
    options: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "300s"}
    if settings.authorities:
        options["root_certificate"] = settings.authorities
    return S3Store(
        bucket,
        config=config,  # type: ignore[arg-type]
        client_options=options,  # type: ignore[arg-type]
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    )


def _changed(uri: str, item: Item) -> Failure:
    return Failure(Reason.CHANGED, f"{uri}: {item.path} changed while it was fetched; starting over with the new one.")


def classify(error: Exception, uri: str, bucket: str, endpoint: str) -> Failure:
    """Return what the store's error means for the user."""
    text = str(error)
    found = _CODE.search(text)
    code = found.group(1) if found else ""
    where = f" at {endpoint}" if endpoint else ""
    if code == "NoSuchBucket":
        message = f"{uri}: the bucket {bucket!r} does not exist{where}. Create it or correct storageUri."
        return Failure(Reason.BUCKET_NOT_FOUND, message)
    if code in _DENIED or isinstance(error, PermissionDeniedError | UnauthenticatedError) or " 403 " in text:
        message = (
            f"{uri}: the store refused access{where}{f' ({code})' if code else ''}. Check AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY in the storage Secret, and that they may list and read {bucket!r}."
        )
        return Failure(Reason.ACCESS_DENIED, message)
    if "InvalidPath" in text or "PathSegment" in text or "EmptySegment" in text:
        message = f"{uri} holds a name that would leave its folder or is empty in part; rename or remove it."
        return Failure(Reason.UNSAFE_PATH, message)
    if "builder error" in text and endpoint.startswith("http://"):
        message = (
            f"{uri}: {endpoint} is plain HTTP. Use https, or allow it with AWS_ALLOW_HTTP=true in the storage Secret."
        )
        return Failure(Reason.INSECURE_ENDPOINT, message)
    if "HTTP error" in text or "timed out" in text:
        message = (
            f"{uri}: the store{where} cannot be reached ({_first_line(text)}). Check AWS_ENDPOINT_URL, DNS and "
            "network policies."
        )
        return Failure(Reason.UNREACHABLE, message)
    return Failure(Reason.FETCH_FAILED, f"{uri}: {_first_line(text)}")


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].rsplit(" - ", 1)[-1].strip()[:300]
