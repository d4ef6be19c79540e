"""One file behind a URL. Read in one stream; continued by a range where the server can."""

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
from conch_agent.sources.base import Buffer, Item, Listing, Location, safe_path
from conch_agent.sources.connection import CheckedResolver, explain, trust
from conch_contract.addresses import check_address

_CHUNK: Final = 1024 * 1024
_DIGITS: Final = 18  # of a size that fits 64 bits
_LONGEST_BODY: Final = 64 * 1024
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".zip", ".tar.zst")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_REDIRECTS: Final = 5
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_PLAIN: Final = {"Accept-Encoding": "identity"}


def open_source(location: Location) -> HttpsSource:
    """Return the file behind the URL; raises Failure (Unsupported) for an archive."""
    return HttpsSource(location.uri)


class HttpsSource:
    """`https://host/file` (and `http://`)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._trust = trust(None)
        path = unquote(urlsplit(uri).path)
        self._name = PurePosixPath(path).name
        if self._name.endswith(_ARCHIVES):
            message = (
                f"{uri} is an archive, which the agent does not unpack. Upload its files to an object store and "
                "point storageUri at the folder, or at a single file."
            )
            raise Failure(Reason.UNSUPPORTED, message)

    async def listing(self) -> Listing:
        """Ask for the first byte only, and learn size and tag (HEAD is refused by many signed URLs)."""
        async with self._get({"Range": "bytes=0-0"}) as answer:
            size = _size(answer)
            item = Item(safe_path(self._name, self.uri), size, _tag(answer, size), self.uri)
        return Listing((item,))

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the rest of the file; a server without ranges sends the beginning again, which is skipped."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(headers) as answer:
            if item.tag and _tag(answer, _size(answer)) != item.tag:
                raise Failure(
                    Reason.CHANGED,
                    f"{self.uri} changed while it was fetched; starting over with the new one.",
                )
            skip = offset if answer.status == 200 else 0
            async for chunk in answer.content.iter_chunked(_CHUNK):
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Never local."""
        return None

    @asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=CheckedResolver()),
                    timeout=_TIMEOUT,
                    headers=_PLAIN,
                    auto_decompress=False,
                ) as session,
                await self._follow(session, headers) as answer,
            ):
                if answer.status not in {200, 206}:
                    body = (await answer.content.read(_LONGEST_BODY)).decode(errors="replace").strip()
                    raise self._refused(read_body(answer.status, answer.reason or "", body))
                yield answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # a ValueError: of an address that is no URL
            raise self._unreachable(error) from error

    async def _follow(self, session: aiohttp.ClientSession, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Return the answer at the end of a few redirects, none of which leaves TLS.

        Raises:
            ValueError: an address, of the URL or of a redirect, is never asked.
        """
        url = URL(self.uri)
        for _ in range(_REDIRECTS + 1):
            check_address(url.host or "")
            answer = await session.get(url, headers=headers, ssl=self._trust, allow_redirects=False)
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

    def _refused(self, answer: Answer) -> Failure:
        status = f"HTTP {answer.status} {answer.phrase}".strip()
        words = status if answer.words == status else f"{status}: {answer.words}"
        if answer.status in {401, 403}:
            message = f"{self.uri}: the server refused access ({words}). Use a URL that may be read."
            return Failure(Reason.ACCESS_DENIED, message)
        if answer.status in {404, 410}:
            return Failure(Reason.NOT_FOUND, f"{self.uri} does not exist ({words}). Correct storageUri.")
        message = f"{self.uri}: the server answered {words}. Read the server's log, or correct storageUri."
        return Failure(Reason.FETCH_FAILED, message)

    def _unreachable(self, error: Exception) -> Failure:
        try:
            parts = urlsplit(self.uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as invalid:
            return Failure(Reason.UNSUPPORTED, f"{self.uri} is no URL ({invalid}). Write it as https://host/file.")
        problem = explain(error, parts.hostname or "", port)
        remedy = (
            "The agent trusts the image's authorities: serve the file with a certificate of one, or from a store with "
            "ca.crt in its Secret"
            if problem.untrusted
            else problem.remedy
        )
        return Failure(Reason.UNREACHABLE, f"{self.uri} cannot be reached: {problem.what}. {remedy}.")


def _size(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isascii() and total.isdecimal() and len(total) <= _DIGITS else None
    return answer.content_length


def _tag(answer: aiohttp.ClientResponse, size: int | None) -> str:
    return answer.headers.get("ETag") or f"{answer.headers.get('Last-Modified', '')}-{size}"
