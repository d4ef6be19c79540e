"""Lists and watches of one kind. Memory is bounded in bytes, for objects of any size.

It is our own because Python's clients read a list, or a page of so many objects, as a whole, and each object may have
1.5 MiB.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp

from conch.api.kinds import Kind
from conch.bodies import TooLargeError, read_body
from conch.write.errors import CallError, read_error, read_object
from conch.write.server import METADATA_LIST, METADATA_ONLY, Server

_PAGE_OBJECTS: Final = 100  # parsed at once, in some 10 ms, in which all else waits; 500 as kubectl requests: 90 ms
_PAGE_BYTES: Final = 2 << 20  # of a page; parsing it takes some 20 ms
# Of one object, or one event: etcd takes 1.5 MiB, and JSON writes a control character with six.
_OBJECT_BYTES: Final = 32 << 20
_PAGE_SECONDS: Final = 30
_CONNECT_SECONDS: Final = 30
# The API server sends a bookmark about once a minute: a watch without any byte for so long has lost its connection. For
# a kind that has no objects it may send none; such a watch is restarted without need, which costs one request.
_SILENCE_SECONDS: Final = 90
EXPIRED: Final = 410  # the resourceVersion of a watch, or the next page of a list, is too old


@dataclass(frozen=True)
class Listing:
    """Which objects: those of a kind, in a namespace or in all, by labels and fields."""

    kind: Kind
    namespace: str = ""  # empty: all
    labels: str = ""  # a label selector; empty: all
    fields: str = ""  # a field selector; empty: all
    metadata_only: bool = False  # without spec and status

    @property
    def path(self) -> str:
        """The URL path of the collection."""
        return self.kind.path(self.namespace)

    @property
    def selectors(self) -> list[tuple[str, str]]:
        """The parameters that select."""
        pairs = (("labelSelector", self.labels), ("fieldSelector", self.fields))
        return [(name, value) for name, value in pairs if value]


class Page(NamedTuple):
    """Some objects of a list."""

    items: list[dict[str, Any]]
    version: str  # the resourceVersion of the whole list
    more: str  # the token of the next page; empty: this is the last


class WatchEvent(NamedTuple):
    """One event of a watch. A BOOKMARK has an object with a resourceVersion alone."""

    type: str  # ADDED, MODIFIED, DELETED or BOOKMARK
    body: dict[str, Any]


async def list_objects(server: Server, listing: Listing) -> AsyncGenerator[dict[str, Any], None]:
    """Yield all objects of a list.

    Raises:
        CallError: the API server refuses or does not answer; 410: the list has changed too much meanwhile, begin anew.
    """
    async with aclosing(list_pages(server, listing)) as found:
        async for page in found:
            for item in page.items:
                yield item


async def list_pages(server: Server, listing: Listing) -> AsyncGenerator[Page, None]:
    """Yield a list page by page. A page that is too large is requested again with a quarter of its objects.

    Raises:
        CallError: as for `list_objects`.
    """
    limit, token = _PAGE_OBJECTS, ""
    while True:
        try:
            page = await _read_page(server, listing, limit, token)
        except TooLargeError as error:
            if limit == 1:
                raise CallError(0, "TooLarge", f"an object of {listing.kind.plural} has {error}") from error
            limit = max(1, limit // 4)
            continue
        yield page
        if not page.more:
            return
        token, limit = page.more, min(2 * limit, _PAGE_OBJECTS)


async def _read_page(server: Server, listing: Listing, limit: int, token: str) -> Page:
    query = [("limit", str(limit)), *([("continue", token)] if token else []), *listing.selectors]
    accept = METADATA_LIST if listing.metadata_only else "application/json"
    limits = aiohttp.ClientTimeout(total=_PAGE_SECONDS)
    async with server.stream("list", listing.kind, listing.path, query, accept, limits) as content:
        text = await read_body(content, _PAGE_BYTES if limit > 1 else _OBJECT_BYTES)
    answer = read_object(server.host, 200, text)
    meta = answer.get("metadata") or {}
    items = [_add_kind(listing.kind, item) for item in answer.get("items") or ()]
    return Page(items, str(meta.get("resourceVersion") or ""), str(meta.get("continue") or ""))


async def watch(server: Server, listing: Listing, version: str, seconds: int) -> AsyncGenerator[WatchEvent, None]:
    """Yield what happens after a resourceVersion, until the API server ends the watch.

    Args:
        server: the connection.
        listing: which objects.
        version: the resourceVersion of a list, or of the last event.
        seconds: after which the API server ends the watch.

    Raises:
        CallError: the API server refuses, does not answer, or reports an error; 410: the version is too old.
    """
    query = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", version),
        ("timeoutSeconds", str(seconds)),
        *listing.selectors,
    ]
    accept = METADATA_ONLY if listing.metadata_only else "application/json"
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
    async with server.stream("watch", listing.kind, listing.path, query, accept, limits) as content:
        try:
            async with aclosing(_read_lines(content, _OBJECT_BYTES)) as lines:
                async for line in lines:
                    yield _parse_event(server.host, listing.kind, line)
        except TooLargeError as error:
            raise CallError(0, "TooLarge", f"an event of {listing.kind.plural} has {error}") from error


def _parse_event(host: str, kind: Kind, line: bytes) -> WatchEvent:
    """Read a line of a watch.

    Raises:
        CallError: it is an error, or no event.
    """
    parsed = read_object(host, 200, line)
    event, body = parsed.get("type"), parsed.get("object")
    if not isinstance(event, str) or not isinstance(body, dict):
        raise CallError(0, "NotKubernetes", f"{host} sends a line in a watch of {kind.plural} that is no event")
    if event == "ERROR":
        raise read_error(int(body.get("code") or 0), json.dumps(body))
    return WatchEvent(event, _add_kind(kind, body))


def _add_kind(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its kind: items of a list do not name it, and metadata alone is of a kind of its own."""
    return body | {"apiVersion": kind.api_version, "kind": kind.name}


async def _read_lines(content: aiohttp.StreamReader, most: int) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a body as they come. A last one that has no end is left out: its connection broke.

    Raises:
        TooLargeError: a line has more bytes than `most`.
    """
    line = bytearray()
    async for chunk in content.iter_any():
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            line += chunk[begin:end]
            yield bytes(line)
            line.clear()
            begin = end + 1
        line += chunk[begin:]
        if len(line) > most:
            raise TooLargeError(most)
