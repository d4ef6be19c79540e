"""A file at a URL, which is read as one stream. A fetch resumes if the server supports ranges."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body
from conch_agent.sources.base import Buffer, Item, Listing, Location, parse_path
from conch_agent.sources.connection import CheckedResolver, build_context, explain
from conch_contract.addresses import check_address

_CHUNK: Final = 1024 * 1024
_DIGITS: Final = 18  # of a size that fits 64 bits
_LONGEST_BODY: Final = 64 * 1024
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".zip", ".tar.zst")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_REDIRECTS: Final = 5
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept-Encoding": "identity"}


def open_source(location: Location) -> HttpsSource:
    """Return the source of a URL.

    Args:
        location: The location.

    Raises:
        Failure: Unsupported for an archive.
    """
    return HttpsSource(location.uri)


class HttpsSource:
    """`https://host/file` (and `http://`)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._context = build_context(None)
        path = unquote(urlsplit(uri).path)
        self._name = PurePosixPath(path).name
        if self._name.endswith(_ARCHIVES):
            message = (
                f"{uri} is an archive, which the agent does not unpack. Upload its files to an object store and "
                "point storageUri at the folder, or at a single file."
            )
            raise Failure(Reason.UNSUPPORTED, message)

    async def list_files(self) -> Listing:
        """Return the file. Size and tag are those of a request for its first byte: many signed URLs refuse HEAD."""
        async with self._get({"Range": "bytes=0-0"}) as answer:
            size = _read_size(answer)
            item = Item(parse_path(self._name, self.uri), size, _read_tag(answer, size), self.uri)
        return Listing((item,))

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the rest of the file, as in Source. The bytes that a server without ranges repeats are skipped."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(headers) as answer:
            if item.tag and _read_tag(answer, _read_size(answer)) != item.tag:
                raise Failure(
                    Reason.CHANGED,
                    f"{self.uri} changed while it was fetched; the agent fetches the new one.",
                )
            skip = offset if answer.status == 200 else 0
            async for chunk in answer.content.iter_chunked(_CHUNK):
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: the file is not local."""
        return None

    @asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=CheckedResolver()),
                    timeout=_TIMEOUT,
                    headers=_HEADERS,
                    auto_decompress=False,
                ) as session,
                await self._follow(session, headers) as answer,
            ):
                if answer.status not in {200, 206}:
                    body = (await answer.content.read(_LONGEST_BODY)).decode(errors="replace").strip()
                    raise self._build_refusal(read_body(answer.status, answer.reason or "", body))
                yield answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # ValueError: the address is no URL
            raise self._build_unreachable(error) from error

    async def _follow(self, session: aiohttp.ClientSession, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Return the answer after a few redirects, none of which leaves TLS.

        Raises:
            ValueError: Conch never connects to the address of the URL or of a redirect.
        """
        url = URL(self.uri)
        for _ in range(_REDIRECTS + 1):
            check_address(url.host or "")
            answer = await session.get(url, headers=headers, ssl=self._context, allow_redirects=False)
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTED or not location:
                return answer
            answer.release()
            target = url.join(URL(location))
            if target.scheme not in {url.scheme, "https"}:
                message = (
                    f"{self.uri}: the server redirects from {url.scheme} to {target.scheme} ({target.host}), which is "
                    "not followed. Correct storageUri, or the server."
                )
                raise Failure(Reason.FETCH_FAILED, message)
            url = target
        message = f"{self.uri}: the server redirects more than {_REDIRECTS} times. Correct storageUri, or the server."
        raise Failure(Reason.FETCH_FAILED, message)

    def _build_refusal(self, answer: Answer) -> Failure:
        status = f"HTTP {answer.status} {answer.phrase}".strip()
        words = status if answer.words == status else f"{status}: {answer.words}"
        if answer.status in {401, 403}:
            message = f"{self.uri}: the server refused access ({words}). Use a URL that may be read."
            return Failure(Reason.ACCESS_DENIED, message)
        if answer.status in {404, 410}:
            return Failure(Reason.NOT_FOUND, f"{self.uri} does not exist ({words}). Correct storageUri.")
        message = f"{self.uri}: the server answered {words}. Read the server's log, or correct storageUri."
        return Failure(Reason.FETCH_FAILED, message)

    def _build_unreachable(self, error: Exception) -> Failure:
        try:
            parts = urlsplit(self.uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as invalid:
            return Failure(Reason.UNSUPPORTED, f"{self.uri} is no URL ({invalid}). Write it as https://host/file.")
        problem = explain(error, parts.hostname or "", port)
        remedy = (
            "The agent trusts the image's authorities: serve the file with a certificate of one, or from a store with "
            "ca.crt in its Secret"
            if problem.is_untrusted
            else problem.remedy
        )
        return Failure(Reason.UNREACHABLE, f"{self.uri} cannot be reached: {problem.cause}. {remedy}.")


def _read_size(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isascii() and total.isdecimal() and len(total) <= _DIGITS else None
    return answer.content_length


def _read_tag(answer: aiohttp.ClientResponse, size: int | None) -> str:
    return answer.headers.get("ETag") or f"{answer.headers.get('Last-Modified', '')}-{size}"
