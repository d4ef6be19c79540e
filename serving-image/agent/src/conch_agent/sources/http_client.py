"""GET requests of the sources that speak HTTP themselves: redirects, checked addresses, and causes of failures."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body
from conch_agent.sources.connection import CheckedResolver, explain
from conch_contract.addresses import check_address

_CHUNK: Final = 1024 * 1024
_LONGEST_BODY: Final = 64 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_REDIRECTS: Final = 5
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept-Encoding": "identity"}
_NO_CREDENTIALS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class HttpClient:
    """Sends GET requests, and follows a few redirects, none of which leaves TLS.

    Attributes:
        uri: The storageUri, with which messages begin.
        setting: The field or key of the Secret that has the address, for messages.
        context: The TLS context of all servers.
        issuer_remedy: Remedy for a certificate of an unknown issuer, a sentence without its full stop.
        plaintext_remedy: Remedy for a server without TLS, a sentence without its full stop; empty: that of the problem.
    """

    uri: str
    setting: str
    context: ssl.SSLContext
    issuer_remedy: str
    plaintext_remedy: str = ""

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str], credentials: Mapping[str, str] = _NO_CREDENTIALS
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Yield the answer after redirects, whatever its status is.

        Args:
            url: The URL.
            headers: Headers for all servers.
            credentials: Headers for the server of the URL alone. A redirect to another one ends them.

        Raises:
            Failure: Unreachable, Unsupported for a text that is no URL, or FetchFailed for a redirect that is not
                followed.
        """
        visited = [url]
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=CheckedResolver()),
                    timeout=_TIMEOUT,
                    headers=_HEADERS,
                    auto_decompress=False,
                ) as session,
                await self._follow(session, visited, headers, credentials) as answer,
            ):
                yield answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # ValueError: the address is no URL
            raise self._build_unreachable(error, visited[-1]) from error

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        visited: list[str],
        headers: Mapping[str, str],
        credentials: Mapping[str, str],
    ) -> aiohttp.ClientResponse:
        """Return the answer after redirects, and append their URLs to those visited.

        Raises:
            ValueError: Conch never connects to the address of the URL or of a redirect.
        """
        url = URL(visited[-1])
        for _ in range(_REDIRECTS + 1):
            check_address(url.host or "")
            sent = {**headers, **credentials}
            answer = await session.get(url, headers=sent, ssl=self.context, allow_redirects=False)
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTED or not location:
                return answer
            answer.release()
            target = url.join(URL(location))
            if target.scheme not in {url.scheme, "https"}:
                message = (
                    f"{self.uri}: the server redirects from {url.scheme} to {target.scheme} ({target.host}), which is "
                    f"not followed. Correct {self.setting}, or the server."
                )
                raise Failure(Reason.FETCH_FAILED, message)
            if target.origin() != url.origin():
                credentials = _NO_CREDENTIALS
            url = target
            visited.append(str(url))
        message = (
            f"{self.uri}: the server redirects more than {_REDIRECTS} times. Correct {self.setting}, or the server."
        )
        raise Failure(Reason.FETCH_FAILED, message)

    def _build_unreachable(self, error: Exception, url: str) -> Failure:
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as invalid:
            return Failure(Reason.UNSUPPORTED, f"{self.uri} is no URL ({invalid}). Write it as https://host/file.")
        problem = explain(error, parts.hostname or "", port)
        remedy = problem.remedy
        if problem.is_untrusted:
            remedy = self.issuer_remedy
        elif problem.is_plaintext:
            remedy = self.plaintext_remedy or remedy
        return Failure(Reason.UNREACHABLE, f"{self.uri} cannot be reached: {problem.cause}. {remedy}.")


async def read_error(answer: aiohttp.ClientResponse) -> Answer:
    """Return the error of an answer.

    Args:
        answer: The answer, whose status is that of an error.
    """
    return read_body(answer.status, answer.reason or "", await read_text(answer))


async def read_text(answer: aiohttp.ClientResponse) -> str:
    """Return the first 64 KiB of an answer's body, or fewer.

    Args:
        answer: The answer.
    """
    return (await answer.content.read(_LONGEST_BODY)).decode(errors="replace").strip()


async def read_whole(answer: aiohttp.ClientResponse, most: int) -> bytes | None:
    """Return the body of an answer; None if it is longer.

    Args:
        answer: The answer.
        most: The largest size in bytes.
    """
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


async def read_rest(answer: aiohttp.ClientResponse, offset: int) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file from an offset. The bytes that a server without ranges repeats are skipped.

    Args:
        answer: The answer to a request for this range.
        offset: Number of bytes to skip.
    """
    skip = offset if answer.status == 200 else 0
    async for chunk in answer.content.iter_chunked(_CHUNK):
        if skip < len(chunk):
            yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def build_range(offset: int, size: int | None = None) -> dict[str, str]:
    """Return the header of a request for the bytes from an offset; empty: all are requested.

    Args:
        offset: Number of bytes to skip.
        size: Size of the whole file in bytes, for servers that take no range without an end; None: unknown.

    >>> build_range(0, 9), build_range(4), build_range(4, 9)
    ({}, {'Range': 'bytes=4-'}, {'Range': 'bytes=4-8'})
    """
    return {"Range": f"bytes={offset}-{'' if size is None else size - 1}"} if offset else {}
