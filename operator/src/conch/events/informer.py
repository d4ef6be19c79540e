"""Informer: fills a cache with the objects of one kind by a list, and keeps it current by a watch.

The rules are those of client-go's package cache (reflector.go): a watch continues from the last resourceVersion that it
has seen; if the API server no longer has that one (410), the objects are listed again.

Why not kopf: it holds all objects until the last one is listed, and a task and a queue for each from then on; it does
not report what was deleted between a watch that broke and the list that follows; the first error of a watch that is not
410, or half a line, ends it; and it takes the signals of the process and cancels the tasks of others.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog
from prometheus_client import Counter

from conch.shutdown import RestartError
from conch.write import CallError, Server
from conch.write.lists import EXPIRED, Listing, list_pages, watch

Body = Mapping[str, Any]

# The API server ends a watch after one to two times so long, as in client-go: watches do not all end at once.
WATCH_SECONDS: Final = 300
_NOT_INSTALLED_SECONDS: Final = 30.0  # until the next discovery of an API that is not installed
_BACKOFF_FIRST: Final = 0.5  # seconds, after a failure
_BACKOFF_LIMIT: Final = 30.0
_STEADY_SECONDS: Final = 5.0  # a watch that lasted so long has not failed
_STALE_LISTS: Final = 3  # one after the other, until the API server's database counts as restored from a backup
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404

_watch_failures = Counter("conch_watch_failures", "Lists and watches that failed and were restarted.", ["resource"])
_quarantined = Counter(
    "conch_quarantined_objects", "Objects of which the operator could not read a version.", ["resource"]
)
_log = structlog.get_logger("conch")


@dataclass(frozen=True)
class Cache:
    """Callbacks for the objects that an informer finds."""

    put: Callable[[Body], object]  # an object exists, or has changed
    delete: Callable[[Body], object]
    # After a list: forget the objects that are not among these uids. Those with a version above the list's are newer.
    # Without a version: the cluster does not serve the kind.
    retain: Callable[[frozenset[str], int | None], object]


@dataclass
class Informer:
    """Fills a cache with the objects of one kind, and keeps it filled."""

    server: Server
    listing: Listing
    cache: Cache
    installed: Callable[[], object] = lambda: None  # called when a missing API has been installed
    listed: asyncio.Event = field(default_factory=asyncio.Event)  # the cache has all objects, or there is no such API
    _version: str = ""  # from which a watch continues; empty: list first
    _newest: int = 0  # the newest resourceVersion seen
    _stale: int = 0  # lists that were older, one after the other
    _lacked: bool = False
    _failures: int = 0

    async def run(self) -> NoReturn:
        """List and watch until cancelled. Failures are retried; the cache keeps its objects meanwhile.

        Raises:
            RestartError: the API server has older objects than the cache, which a new process can take in.
        """
        while True:
            delay = 0.0
            try:
                try:
                    await self._follow()
                except CallError as error:
                    delay = await self._recover(error)
            except RestartError:
                raise
            except Exception:  # noqa: BLE001  the error of one kind does not end the watches of the others
                self._version = ""
                delay = self._backoff()
                _log.exception("watch failed", kind=self.listing.kind.name)
            await asyncio.sleep(delay)

    async def _follow(self) -> None:
        """List if there is no version to continue from, and watch once."""
        if not self._version:
            self._version = await self._list()
        began = asyncio.get_running_loop().time()
        seconds = WATCH_SECONDS + random.randrange(WATCH_SECONDS)  # noqa: S311  jitter is no secret
        try:
            async with aclosing(watch(self.server, self.listing, self._version, seconds)) as events:
                async for event in events:
                    self._handle(event.type, event.body)
                    await asyncio.sleep(0)  # other tasks run between two events
        finally:
            lasted = asyncio.get_running_loop().time() - began
            self._failures = 0 if lasted > _STEADY_SECONDS else self._failures
        if lasted < 1:
            raise CallError(0, "ShortWatch", "the API server ended the watch at once")

    async def _list(self) -> str:
        """Store all objects, drop those that are gone, and return the resourceVersion of the list."""
        uids: set[str] = set()
        version = ""
        async with aclosing(list_pages(self.server, self.listing)) as found:
            async for page in found:
                version = page.version
                self._check_age(int(version))
                for body in page.items:
                    uids.add(body["metadata"]["uid"])
                    self._put(body)
                    await asyncio.sleep(0)
        self.cache.retain(frozenset(uids), int(version))
        self.listed.set()
        if self._lacked:
            self._lacked = False
            _log.info("an API has been installed", kind=self.listing.kind.name)
            self.installed()
        return version

    def _check_age(self, version: int) -> None:
        """Note the version of a list. A list without a version in its request is never older than what was seen before.

        Raises:
            CallError: this list is older: it comes from a cache, or from a database that was restored from a backup.
            RestartError: several were, one after the other.
        """
        if version >= self._newest:
            self._newest, self._stale = version, 0
            return
        self._stale += 1
        message = f"the list of {self.listing.kind.plural} is older ({version}) than the newest object ({self._newest})"
        if self._stale >= _STALE_LISTS:
            raise RestartError(f"{message}: the database of the API server may have been restored from a backup")
        raise CallError(0, "StaleList", message)

    def _handle(self, event: str, body: Body) -> None:
        """Handle an event, and note its resourceVersion."""
        if event in {"ADDED", "MODIFIED"}:
            self._put(body)
        elif event == "DELETED":
            self._guard(self.cache.delete, body)
        version = body["metadata"]["resourceVersion"]
        if event == "BOOKMARK" and int(version) < self._newest:
            # A watch may be silent about what is older than the version from which it began.
            raise CallError(EXPIRED, "Expired", f"a bookmark is older ({version}) than what was seen before")
        self._version = version
        self._newest = max(self._newest, int(version))

    def _put(self, body: Body) -> None:
        self._guard(self.cache.put, body)

    def _guard(self, callback: Callable[[Body], object], body: Body) -> None:
        """Call back with an object. An object that cannot be read is skipped."""
        try:
            callback(body)
        except Exception:  # noqa: BLE001  users may write unexpected objects
            _quarantine(self.listing.kind.plural, body)

    async def _recover(self, error: CallError) -> float:
        """Decide whether the next attempt lists anew; return the seconds until then."""
        if error.code == EXPIRED:
            self._version = ""
        # The API server answers 403 before 404: a role may lack an API that the cluster lacks too.
        if error.code in {_FORBIDDEN, _NOT_FOUND} and await self._is_not_installed():
            self._version = ""
            self._lacked = True
            self.cache.retain(frozenset(), None)
            self.listed.set()
            return _NOT_INSTALLED_SECONDS
        delay = max(self._backoff(), error.retry_after or 0.0)
        if error.code != EXPIRED:
            retry = round(delay, 1)
            _log.warning("watch failed", kind=self.listing.kind.name, error=error.message, retry_seconds=retry)
        return delay

    async def _is_not_installed(self) -> bool:
        """Return whether discovery, too, knows no such kind: the answer to a list alone may be a proxy's."""
        try:
            return not await self.server.serves(self.listing.kind)
        except CallError:
            return False

    def _backoff(self) -> float:
        _watch_failures.labels(self.listing.kind.plural).inc()
        self._failures += 1
        delay = min(_BACKOFF_FIRST * 2.0 ** min(self._failures - 1, 16), _BACKOFF_LIMIT)
        return delay * random.uniform(0.75, 1.25)  # noqa: S311  jitter is no secret


def _quarantine(resource: str, body: Body) -> None:
    """Log and count the exception that an object has caused."""
    _quarantined.labels(resource).inc()
    meta = body.get("metadata") or {}
    _log.exception("object not read", resource=resource, namespace=meta.get("namespace"), name=meta.get("name"))
