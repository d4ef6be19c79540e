"""A file at a URL, which is read as one stream. A fetch resumes if the server supports ranges.

A tar file is an archive: its members are the files.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer
from conch_agent.sources.base import Archives, Buffer, Item, Listing, Location, parse_path
from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.http_answers import build_range, check_page, read_error, read_rest
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.https_settings import KEYS, describe_credentials, parse_settings

__all__ = ["KEYS", "HttpsSource", "open_source"]

_DIGITS: Final = 18  # of a size that fits 64 bits
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd")
_PAGE_REMEDY: Final = "Write a URL that needs no login, and that is the file's own, not that of a page about it"


def open_source(location: Location) -> HttpsSource:
    """Return the source of a URL.

    Args:
        location: The location.

    Raises:
        Failure: Unsupported for a zip archive.
    """
    return HttpsSource(location.uri, location.secret)


class HttpsSource:
    """`https://host/file` (and `http://`)."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        self.uri = uri
        settings = parse_settings(secret)
        context, proxies = build_context(settings.authorities), settings.find_proxies()
        self._client = HttpClient(uri, "storageUri", Destinations.of_url(uri), context, proxies)
        self._credentials, self._remedy = settings.find_credentials(uri), describe_credentials(settings, uri)
        path = unquote(urlsplit(uri).path)
        self._name = PurePosixPath(path).name
        if self._name.endswith(".zip"):
            message = (
                f"{uri} is a zip archive, which the agent does not unpack. Upload a tar file, or the files to an"
                " object store, and point storageUri at it."
            )
            raise Failure(Reason.UNSUPPORTED, message)

    async def list_files(self) -> Listing:
        """Return the file. Size and tag are those of a request for its first byte: many signed URLs refuse HEAD."""
        async with self._get({"Range": "bytes=0-0"}) as answer:
            size = _read_size(answer)
            item = Item(parse_path(self._name, self.uri), size, _read_tag(answer, size), self.uri)
        return Listing((), Archives((item,))) if self._name.endswith(_ARCHIVES) else Listing((item,))

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the rest of the file, as in Source. The bytes that a server without ranges repeats are skipped."""
        async with self._get(build_range(offset)) as answer:
            if item.tag and _read_tag(answer, _read_size(answer)) != item.tag:
                raise Failure(
                    Reason.CHANGED,
                    f"{self.uri} changed while it was fetched; the agent fetches the new one.",
                )
            async for chunk in read_rest(answer, offset):
                yield chunk

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: the file is not local."""
        return None

    @asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        async with self._client.get(self.uri, headers, self._credentials) as answer:
            if answer.status not in {200, 206}:
                raise self._build_refusal(await read_error(answer))
            await check_page(answer, self._name, _PAGE_REMEDY)
            yield answer

    def _build_refusal(self, answer: Answer) -> Failure:
        status = answer.status_line
        words = status if answer.words == status else f"{status}: {answer.words}"
        if answer.status in {401, 403}:
            message = f"{self.uri}: the server refused access ({words}). {self._remedy}."
            return Failure(Reason.ACCESS_DENIED, message)
        if answer.status in {404, 410}:
            return Failure(Reason.NOT_FOUND, f"{self.uri} does not exist ({words}). Correct storageUri.")
        message = f"{self.uri}: the server answered {words}. Read the server's log, or correct storageUri."
        return Failure(Reason.FETCH_FAILED, message, is_outage=answer.is_outage)


def _read_size(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isascii() and total.isdecimal() and len(total) <= _DIGITS else None
    return answer.content_length


def _read_tag(answer: aiohttp.ClientResponse, size: int | None) -> str:
    time = answer.headers.get("Last-Modified")
    return answer.headers.get("ETag") or (f"{time}-{size}" if time else "")
