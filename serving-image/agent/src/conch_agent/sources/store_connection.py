"""The connection of a source to its bucket: the client behind the proxy, and the causes of failed requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.connection import Problem, build_context, check_host, find_problem, has_tls
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_client import Bucket
from conch_agent.sources.store_errors import (
    Target,
    build_unreachable,
    classify,
    is_certificate_refusal,
    is_client_error,
    is_transport,
)
from conch_agent.sources.store_proxy import StoreProxy, plain_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_T = TypeVar("_T")


class StoreConnection:
    """The clients of a bucket, and the failures of their requests."""

    def __init__(self, uri: str, bucket: Bucket) -> None:
        """Create the connection; `open` connects.

        Args:
            uri: The storageUri, with which messages begin.
            bucket: Its bucket.
        """
        self._bucket = bucket
        named = bucket.endpoint.url if bucket.endpoint else ""
        self._target = Target(uri, bucket.name, named, is_signed=bucket.is_signed, unknown=bucket.unknown)
        self._noted: Failure | None = (
            None  # the cause of the client's next error: of the proxy, or of a token's request
        )
        self._has_relay = False  # True after OpenSSL has accepted a certificate that the client refuses

    async def run_first(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run the first requests to the store. If only the client refuses the certificate, the proxy uses OpenSSL.

        Args:
            work: Returns the requests, which may be sent twice.

        Raises:
            Failure: The endpoint is refused, or a request fails.
        """
        self._noted = None
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
        return await self.run_guarded(work())

    async def _check_endpoint(self) -> None:
        endpoint, key = self._bucket.endpoint, self._bucket.terms.endpoint_key
        try:
            if endpoint:
                await check_host(endpoint.host, endpoint.port)
        except ValueError as error:
            message = f"{self._target.uri}: {key} is {endpoint.url if endpoint else ''}, but {error}. Correct it."
            raise Failure(Reason.UNREACHABLE, message) from None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ObjectStore, None]:
        """Yield a client of the bucket. All its connections go through a proxy, which runs while the block does."""
        bucket, store = self._bucket, self._get_endpoint()
        context = build_context(bucket.authorities) if self._has_relay else None
        url = plain_url(store) if self._has_relay else self._target.endpoint
        proxy = StoreProxy(store, self._note_refusal, context=context, has_token=bucket.has_token)
        async with proxy.run():
            yield bucket.open(url, proxy.url, self._note_failure)

    def _note_failure(self, failure: Failure) -> None:
        self._noted = failure

    def _note_refusal(self, reason: str) -> None:
        key = self._bucket.terms.endpoint_key
        message = f"{self._target.uri}: {reason}. Correct the store, or {key} in the storage Secret."
        self._note_failure(Failure(Reason.FETCH_FAILED, message))

    def _get_endpoint(self) -> Endpoint:
        """Return the address of the store, the provider's own where the Secret names none."""
        return self._bucket.endpoint or self._bucket.default_endpoint

    async def run_guarded(self, work: Awaitable[_T]) -> _T:
        """Await the requests, and translate the client's errors into a Failure.

        Args:
            work: The requests.

        Raises:
            Failure: A request fails.
        """
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
        endpoint = self._bucket.endpoint
        if not endpoint or not endpoint.is_secure or not is_certificate_refusal(error):
            return False
        return await find_problem(endpoint.host, endpoint.port, build_context(self._bucket.authorities)) is None

    async def _build_failure(self, error: Exception) -> Failure:
        """Return the failure. If the store was not reached, the cause is that of another connection."""
        terms, endpoint = self._bucket.terms, self._get_endpoint()
        if noted := self._noted:
            self._noted = None
            return noted
        if is_transport(error):
            context = build_context(self._bucket.authorities) if endpoint.is_secure else None
            if problem := await find_problem(endpoint.host, endpoint.port, context):
                return build_unreachable(self._target, problem, terms)
            if context is None and await has_tls(endpoint.host, endpoint.port):
                cause = f"{endpoint.host}:{endpoint.port} speaks TLS"
                return build_unreachable(
                    self._target, Problem(cause, f"Write {terms.endpoint_key} with https://"), terms
                )
        return classify(error, self._target, terms)
