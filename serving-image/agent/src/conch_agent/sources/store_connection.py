"""The connection of a source to its bucket: the client behind the proxy, and the causes of failed requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.object_reads import ObjectReads
from conch_agent.sources.signed_reads import SignedReads
from conch_agent.sources.store_client import Bucket
from conch_agent.sources.store_errors import Target, classify, is_client_error
from conch_agent.sources.store_proxy import StoreProxy, plain_url
from conch_contract.addresses import check_address

if TYPE_CHECKING:
    from obstore.store import ObjectStore


@dataclass(frozen=True)
class OpenBucket:
    """The client of a bucket, and the reads of its objects."""

    store: ObjectStore
    reads: ObjectReads


class StoreConnection:
    """The clients of a bucket, and the failures of their requests."""

    def __init__(self, uri: str, bucket: Bucket) -> None:
        """Create the connection; `open` connects.

        Args:
            uri: The storageUri, with which messages begin.
            bucket: Its bucket.
        """
        self._bucket = bucket
        self._endpoint = bucket.endpoint or bucket.default_endpoint
        named = bucket.endpoint.url if bucket.endpoint else ""
        self._target = Target(uri, bucket.name, named, is_signed=bucket.is_signed, unknown=bucket.unknown)
        setting = f"{bucket.terms.endpoint_key} in the storage Secret"
        server = f": the store{self._target.where}"
        host_remedy = "" if bucket.endpoint else bucket.terms.unknown_host
        destinations, context = Destinations(self._endpoint.host), build_context(bucket.network.authorities)
        proxies = bucket.network.find_proxies()
        self._client = HttpClient(uri, setting, destinations, context, proxies, server=server, host_remedy=host_remedy)
        self._lock = asyncio.Lock()
        self._users = 0  # active blocks of `open`
        self._resources = AsyncExitStack()
        self._proxy = StoreProxy(self._endpoint, self._client)
        self._open: OpenBucket

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenBucket, None]:
        """Yield the bucket. Blocks that are active at the same time share it: to make a client takes 5 ms.

        Raises:
            Failure: The endpoint is refused, or a request of the block fails.
        """
        self._check_endpoint()
        async with self._lock:
            if not self._users:
                self._proxy = StoreProxy(self._endpoint, self._client)
                self._open = await self._connect()
            self._users += 1
        proxy = self._proxy
        try:
            yield self._open
        except Failure:
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            raise (proxy.failure or classify(error, self._target, self._bucket.terms)) from error
        finally:
            self._users -= 1
            if not self._users:
                await self._resources.pop_all().aclose()

    async def _connect(self) -> OpenBucket:
        await self._resources.enter_async_context(self._proxy.run())
        store = self._bucket.open(plain_url(self._endpoint), self._proxy.url, self._proxy.note)
        if not self._bucket.signs_urls:  # the library would request credentials of the cloud's metadata server
            return OpenBucket(store, ObjectReads(self._target.uri, store, None))
        session = await self._resources.enter_async_context(self._client.open_session())
        signed = SignedReads(store, self._endpoint, self._client, session, self._bucket.read_headers)
        return OpenBucket(store, ObjectReads(self._target.uri, store, signed))

    def _check_endpoint(self) -> None:
        try:
            check_address(self._endpoint.host)
        except ValueError as error:
            key, url = self._bucket.terms.endpoint_key, self._endpoint.url
            message = f"{self._target.uri}: {key} is {url}, but {error}. Correct it."
            raise Failure(Reason.UNREACHABLE, message) from None
