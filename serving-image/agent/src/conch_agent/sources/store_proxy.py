"""A proxy on loopback for all requests of the client of an object store.

The client's library resolves names and follows redirects itself, checks certificates with other rules than OpenSSL and
curl, and reads the whole body of an answer into memory. The proxy sends its requests by the agent's own HTTP client,
and passes on no more than the client has to read. TLS is between the proxy and the store alone.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final, Literal, cast
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.http_answers import (
    ANSWER_ERRORS,
    LONGEST_ERROR,
    WrongAnswerError,
    check_coding,
    check_page,
    check_range,
    read_blocks,
)
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.secret_settings import Endpoint

_LONGEST_ANSWER: Final = 8 * 1024 * 1024  # bytes; a page of a list has 1,000 keys of up to 1,024 bytes
_LONGEST_LINE: Final = 64 * 1024  # bytes of the first line of a request
_REMEDY: Final = "Correct the store, or the proxy before it"
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d+)")
_CREDENTIALS: Final = frozenset({"host", "authorization", "x-amz-security-token", "cookie"})
# Headers of one hop (RFC 9110, 7.6.1).
_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}
)
_DROPPED: Final = _HOP | {"content-encoding", "set-cookie"}  # of an answer: objects arrive as they are stored


def plain_url(endpoint: Endpoint) -> str:
    """Return the endpoint's URL as http://. Its host and port are those of the endpoint, which a signature covers.

    Args:
        endpoint: The endpoint.

    >>> plain_url(Endpoint("https://store/s3", "store", 443)), plain_url(Endpoint("https://[::1]:9000", "::1", 9000))
    ('http://store/s3', 'http://[::1]:9000')
    """
    is_default = endpoint.port == (443 if endpoint.is_secure else 80)
    return f"http://{_write_host(endpoint)}{'' if is_default else f':{endpoint.port}'}{urlsplit(endpoint.url).path}"


def build_url(endpoint: Endpoint, target: str) -> URL:
    """Return the URL of a request at the store, whatever host it names: other processes of the pod may connect.

    Args:
        endpoint: The endpoint.
        target: Path and query of the request, or its whole URL.
    """
    parts = urlsplit(target)
    query = f"?{parts.query}" if parts.query else ""
    scheme = urlsplit(endpoint.url).scheme
    return URL(f"{scheme}://{_write_host(endpoint)}:{endpoint.port}{parts.path or '/'}{query}", encoded=True)


def _write_host(endpoint: Endpoint) -> str:
    """Return the host as it stands in a URL."""
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


class StoreProxy:
    """The proxy, which listens while `run` is active.

    Attributes:
        url: Its URL.
        failure: The failure of the last request that was not answered; None: there is none.
    """

    def __init__(self, endpoint: Endpoint, client: HttpClient) -> None:
        """Create the proxy.

        Args:
            endpoint: Endpoint of the store.
            client: Sends the requests.
        """
        self.url = ""
        self.failure: Failure | None = None
        self._endpoint = endpoint
        self._client = client
        self._session: aiohttp.ClientSession | None = None
        self._pages: set[str] = set()  # URLs that were answered completely, other than those of ranges

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[StoreProxy, None]:
        """Listen while the block runs."""
        server = web.Server(self._answer, handler_cancellation=True, access_log=None, max_line_size=_LONGEST_LINE)
        runner = web.ServerRunner(server, shutdown_timeout=0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with self._client.open_session() as self._session:
                yield self
        finally:
            await runner.cleanup()

    def note(self, failure: Failure) -> None:
        """Set the failure of what the client requests elsewhere, such as a token.

        Args:
            failure: The failure.
        """
        self.failure = failure

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of the client. What follows a failure that no retry cures is refused."""
        if self.failure and self.failure.reason != Reason.UNREACHABLE:
            return web.Response(status=400)
        self.failure = None
        try:
            return await self._forward(request)
        except Failure as failure:
            self.failure = failure
            return web.Response(status=503 if failure.reason == Reason.UNREACHABLE else 400)
        except _ClientGoneError:
            return web.Response()

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send a request to the store, and pass on its answer."""
        if request.method not in {"GET", "HEAD"}:  # the client only reads
            return web.Response(status=405)
        method = cast("Literal['GET', 'HEAD']", request.method)
        url = build_url(self._endpoint, request.raw_path)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        credentials = {name: headers.pop(name) for name in list(headers) if name.lower() in _CREDENTIALS}
        session = cast("aiohttp.ClientSession", self._session)
        async with await self._client.send(session, method, url, headers, credentials) as answer:
            try:
                await self._check(request, answer)
                return await self._pass(request, answer)
            except ANSWER_ERRORS as error:
                raise await self._client.build_failure(error, str(answer.url)) from error

    async def _check(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> None:
        """Refuse an answer that the client would read for nothing.

        Raises:
            WrongAnswerError: It is not to the request.
        """
        if answer.status >= 300 or request.method == "HEAD":
            return
        if "Range" in request.headers and answer.status != 206:
            await check_page(answer, request.path, _REMEDY)
            text = f"answers a request for a range with HTTP {answer.status}, so with the whole object"
            raise WrongAnswerError(text, _REMEDY)
        if match := _RANGE.fullmatch(request.headers.get("Range", "")):
            check_range(answer, int(match[1]))
            if answer.content_length is None:  # without which the client reads nothing
                raise WrongAnswerError("sends a range of an object without its Content-Length", _REMEDY)
        else:
            check_coding(answer)
            if request.raw_path in self._pages:
                raise WrongAnswerError("lists the same page again and again", _REMEDY)

    async def _pass(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass on an answer, up to what was requested; of an error the beginning."""
        is_error, is_range = answer.status >= 300, "Range" in request.headers
        bound = LONGEST_ERROR if is_error else _find_bound(request)
        is_long = request.method == "GET" and (answer.content_length or 0) > bound
        if is_long and not is_error:
            raise _build_too_long(bound)
        dropped = _DROPPED | ({"content-length"} if is_long else set())
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend(
            [(name, value) for name, value in answer.headers.items() if name.lower() not in dropped]
        )
        await response.prepare(request)
        try:
            if request.method == "GET":
                await _copy(answer, response, bound, is_cut=is_error)
        except ANSWER_ERRORS:
            if request.transport:
                request.transport.abort()  # otherwise the client would take the answer for complete
            raise
        await response.write_eof()
        if request.method == "GET" and not is_error and not is_range:
            self._pages.add(request.raw_path)
        return response


class _ClientGoneError(Exception):
    """The client has closed its connection to the proxy."""


async def _copy(answer: aiohttp.ClientResponse, response: web.StreamResponse, bound: int, *, is_cut: bool) -> None:
    """Copy a body up to a number of bytes.

    Raises:
        WrongAnswerError: It has more, unless `is_cut`.
    """
    left = bound
    async with aclosing(read_blocks(answer)) as blocks:
        async for block in blocks:
            if len(block) > left and not is_cut:
                raise _build_too_long(bound)
            try:
                await response.write(block[:left])
            except OSError as error:
                raise _ClientGoneError from error
            left -= len(block)
            if left <= 0 and is_cut:
                return


def _build_too_long(bound: int) -> WrongAnswerError:
    return WrongAnswerError(f"sends an answer of more than {bound} bytes, which are the most that it may have", _REMEDY)


def _find_bound(request: web.BaseRequest) -> int:
    """Return the number of bytes that an answer may have."""
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    return int(match[2]) - int(match[1]) + 1 if match else _LONGEST_ANSWER
