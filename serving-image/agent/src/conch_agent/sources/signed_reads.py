"""Reads of objects by URLs that the store's client signs and the agent's own client sends.

The client of the store passes each byte through the proxy on loopback, at twice the processor time. A signed URL gives
access to its object, so it is in no message and in no log, and it expires soon.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import obstore

from conch_agent.reasons import Failure
from conch_agent.sources.base import Buffer, Item
from conch_agent.sources.http_answers import ANSWER_ERRORS, check_range, read_blocks
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_client import is_same_tag, quote_tag
from conch_agent.sources.store_errors import is_client_error
from conch_agent.sources.store_proxy import build_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_VALID: Final = timedelta(minutes=5)  # a request begins at once; clocks may differ


class SignedReads:
    """Reads objects by signed URLs, until the first surprise."""

    def __init__(
        self,
        store: ObjectStore,
        endpoint: Endpoint,
        client: HttpClient,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
    ) -> None:
        """Create the reads of a bucket.

        Args:
            store: The client of the bucket, which has credentials.
            endpoint: Endpoint of the store.
            client: Sends the requests.
            session: Its session.
            headers: Headers of all requests.
        """
        self._store: Any = store  # the types of obstore have the stores that sign, which are all three of Bucket
        self._endpoint = endpoint
        self._client = client
        self._session = session
        self._headers = headers
        self._has_failed = False

    async def read(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        """Yield bytes of an object in order; fewer if anything is not as expected, and from then on none.

        The caller reads what is missing by the client of the store, which retries, and reports causes: credentials
        that do not sign or a store that takes no signed URL are no failure.

        Args:
            item: The object. Of another content nothing is yielded.
            start: The first byte.
            end: The byte after the last.
        """
        if self._has_failed:
            return
        try:
            signed = await obstore.sign_async(self._store, "GET", item.key, _VALID)
            headers = {**self._headers, "Range": f"bytes={start}-{end - 1}", "If-Match": quote_tag(item.tag)}
            url = build_url(self._endpoint, signed)
            async with await self._client.send(self._session, "GET", url, headers) as answer:
                if _is_part(answer, item, start, end):
                    async for block in read_blocks(answer):
                        start += len(block)
                        yield block
        except Exception as error:
            if not isinstance(error, (Failure, *ANSWER_ERRORS)) and not is_client_error(error):
                raise
        self._has_failed = self._has_failed or start < end


def _is_part(answer: aiohttp.ClientResponse, item: Item, start: int, end: int) -> bool:
    """Return True for exactly the requested bytes of the listed content."""
    if answer.status != 206 or answer.content_length != end - start:
        return False
    check_range(answer, start)
    total = answer.headers["Content-Range"].rpartition("/")[2]
    return total == str(item.size) and is_same_tag(answer.headers.get("ETag", ""), item.tag)
