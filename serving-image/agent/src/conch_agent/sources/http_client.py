"""Requests of the sources over HTTP: redirects, checked addresses, bounds in time, and causes of failures."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.connection import (
    ISSUER_REMEDY,
    TIMEOUT,
    Problem,
    build_options,
    check_proxy,
    explain,
    has_tls,
    name_proxy,
)
from conch_agent.sources.destinations import CheckedResolver, Destinations, RefusedAddressError
from conch_agent.sources.http_answers import ANSWER_ERRORS, CHUNK, WrongAnswerError
from conch_agent.sources.pace import StalledError
from conch_agent.sources.proxies import Proxies, Proxy

_HEAD_SECONDS: Final = 30.0  # from a request to the end of the answer's headers
_CONNECT: Final = aiohttp.ClientTimeout(total=None, connect=TIMEOUT, sock_connect=TIMEOUT)
_REDIRECTS: Final = 5
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept-Encoding": "identity"}
_NO_CREDENTIALS: Final[Mapping[str, str]] = MappingProxyType({})
# Errors of a server that has accepted the connection, and may expect TLS.
_BROKEN: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError, aiohttp.ClientOSError)


class SlowHeadError(TimeoutError):
    """The headers of an answer are not complete in time."""


@dataclass(frozen=True)
class HttpClient:
    """Sends GET and HEAD requests, and follows a few redirects, none of which leaves TLS.

    Attributes:
        uri: The storageUri, with which messages begin.
        setting: The field or key of the Secret that has the address, for messages.
        destinations: The addresses to which connections may be made.
        context: The TLS context of all servers.
        proxies: The proxies.
        issuer_remedy: Remedy for a certificate of an unknown issuer, a sentence without its full stop.
        plaintext_remedy: Remedy for a server without TLS, a sentence without its full stop; empty: that of the problem.
        host_remedy: Remedy for a host name without addresses, as `issuer_remedy`; empty: that of the problem.
        server: The server, which follows the storageUri in messages, such as `: the store at https://store`.
    """

    uri: str
    setting: str
    destinations: Destinations
    context: ssl.SSLContext
    proxies: Proxies
    issuer_remedy: str = ISSUER_REMEDY
    plaintext_remedy: str = ""
    server: str = ""
    host_remedy: str = ""

    def open_session(self) -> aiohttp.ClientSession:
        """Return a session, whose connections several requests use one after the other."""
        resolver = CheckedResolver(self.destinations, self.proxies.addresses)
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=self.context, limit=0)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=_CONNECT,
            headers=_HEADERS,
            auto_decompress=False,
            read_bufsize=CHUNK,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

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
            Failure: As `send`, and of the errors in which the block ends.
        """
        try:
            target = URL(url)
        except ValueError as error:
            raise await self.build_failure(error, url) from error
        async with (
            self.open_session() as session,
            await self.send(session, "GET", target, headers, credentials) as answer,
        ):
            try:
                yield answer
            except ANSWER_ERRORS as error:
                raise await self.build_failure(error, str(answer.url)) from error

    async def send(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "HEAD"],
        url: URL,
        headers: Mapping[str, str],
        credentials: Mapping[str, str] = _NO_CREDENTIALS,
    ) -> aiohttp.ClientResponse:
        """Return the answer after redirects, whatever its status is, before its body is read.

        Args:
            session: The session.
            method: The method.
            url: The URL.
            headers: As in `get`.
            credentials: As in `get`.

        Raises:
            Failure: Unreachable, Unsupported for a text that is no URL, or FetchFailed for a redirect that is not
                followed.
        """
        visited = [url]
        try:
            return await self._follow(session, method, visited, headers, credentials)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # ValueError: the address is no URL
            raise await self.build_failure(error, str(visited[-1])) from error

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "HEAD"],
        visited: list[URL],
        headers: Mapping[str, str],
        credentials: Mapping[str, str],
    ) -> aiohttp.ClientResponse:
        """Return the answer after redirects, and append their URLs to those visited.

        Raises:
            RefusedAddressError: The agent does not connect to the address of the URL or of a redirect.
        """
        url = visited[-1]
        for _ in range(_REDIRECTS + 1):
            self.destinations.check(url.host or "", ())
            proxy = self.proxies.find(url)
            answer = await _request(session, method, url, {**headers, **credentials}, proxy)
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
            visited.append(url)
        message = (
            f"{self.uri}: the server redirects more than {_REDIRECTS} times. Correct {self.setting}, or the server."
        )
        raise Failure(Reason.FETCH_FAILED, message)

    async def build_failure(self, error: Exception, url: str) -> Failure:
        """Return the failure of a connection or an answer. The URL may be signed, and so is in no message.

        Args:
            error: The error, one of ANSWER_ERRORS.
            url: The URL of the request.
        """
        try:
            parts, target = urlsplit(url), URL(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as invalid:
            return Failure(Reason.UNSUPPORTED, f"{self.uri} is no URL ({invalid}). Write it as https://host/file.")
        host = parts.hostname or ""
        if isinstance(error, StalledError):
            message = (
                f"{self.uri}: {host}:{port} {error}. The agent retries and resumes. Read the server's log, or"
                " check the network between the pod and it."
            )
            return Failure(Reason.FETCH_FAILED, message, is_outage=True)
        if isinstance(error, RefusedAddressError):
            return self._build_refused(error)
        if isinstance(error, WrongAnswerError):
            return Failure(Reason.FETCH_FAILED, f"{self.uri}: {host}:{port} {error}. {error.remedy}.")
        problem = await self._explain(error, target, host, port)
        remedy = problem.remedy
        if problem.is_untrusted:
            remedy = self.issuer_remedy
        elif problem.is_plaintext:
            remedy = self.plaintext_remedy or remedy
        elif problem.is_unresolved:
            remedy = self.host_remedy or remedy
        message = f"{self.uri}{self.server} cannot be reached: {problem.cause}. {remedy}."
        return Failure(Reason.UNREACHABLE, message)

    def _build_refused(self, error: RefusedAddressError) -> Failure:
        if error.is_named:
            message = f"{self.uri}{self.server} cannot be reached: {error}. Correct {self.setting}."
            return Failure(Reason.UNREACHABLE, message)
        message = (
            f"{self.uri}{self.server} leads to {error.where}, {error.what}. Correct {self.setting}, or the server."
        )
        return Failure(Reason.FETCH_FAILED, message)

    async def _explain(self, error: Exception, url: URL, host: str, port: int) -> Problem:
        proxy = self.proxies.find(url)
        if isinstance(error, SlowHeadError):
            cause = f"{host}:{port} did not complete the headers of its answer in {_HEAD_SECONDS:g} s"
            return name_proxy(Problem(cause, "Read the server's log"), proxy)
        if proxy:
            return explain(error, host, port, proxy)
        is_broken = isinstance(error, _BROKEN) and not isinstance(error, aiohttp.ClientConnectorError)
        if url.scheme == "http" and is_broken and await has_tls(host, port, self.destinations):
            return Problem(f"{host}:{port} speaks TLS", f"Write {self.setting} with https://")
        return explain(error, host, port)


async def _request(
    session: aiohttp.ClientSession, method: str, url: URL, headers: Mapping[str, str], proxy: Proxy | None
) -> aiohttp.ClientResponse:
    """Return an answer once it has a status and headers, without following redirects.

    Raises:
        aiohttp.ClientHttpProxyError: As in `check_proxy`.
        SlowHeadError: They do not come in time, such as after interim answers (1xx) without end.
    """
    try:
        async with asyncio.timeout(_HEAD_SECONDS) as limit:
            answer = await session.request(method, url, **build_options(url, headers, proxy))
    except TimeoutError:
        if not limit.expired():
            raise
        raise SlowHeadError from None
    check_proxy(answer, proxy)
    return answer
