"""The watch of sources: whether they still have the files that the pod has fetched.

The pod reports what it reads, and keeps its files. The operator decides what new content brings.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from conch_agent.expansion import combine_identities, list_models
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_contract import ModelSource, SourceReport
from conch_contract.formats import FORMATS
from conch_contract.manifest import WatchedSource

_MOST_FAILURES: Final = 3  # in a row, after which they are reported
_LONGEST_MESSAGE: Final = 1024


@dataclass(frozen=True)
class Reading:
    """What the reads of a listing have shown.

    Attributes:
        identity: Identity of the listing that was read twice in a row; empty: there is none yet.
        since: When it was read first, in seconds since the epoch.
        next_identity: Another one, which the last read returned; empty: it returned the same.
        next_since: When that was read, in seconds since the epoch.
    """

    identity: str = ""
    since: float = 0.0
    next_identity: str = ""
    next_since: float = 0.0


def note_read(before: Reading, identity: str, now: float) -> Reading:
    """Return what is known after another read. Only a listing that lasts is new: an upload changes it file by file.

    Args:
        before: What was known.
        identity: Identity of the listing.
        now: Seconds since the epoch.

    >>> first = note_read(Reading(), "a", 10)
    >>> first.identity, note_read(first, "a", 20).identity, note_read(first, "a", 20).since
    ('', 'a', 10)
    >>> partial = note_read(note_read(first, "a", 20), "ab", 30)
    >>> partial.identity, note_read(partial, "abc", 40).identity, note_read(partial, "ab", 40).since
    ('a', 'a', 30)
    """
    if identity == before.identity:
        return replace(before, next_identity="", next_since=0.0)
    if identity == before.next_identity:
        return Reading(identity, before.next_since)
    return replace(before, next_identity=identity, next_since=now)


class SourceWatch:
    """Reads a listing until its task is cancelled."""

    def __init__(self, source: WatchedSource, settings: Settings) -> None:
        self.reading = Reading()
        self.message = ""  # why it cannot be read; empty: it can
        self._source = source
        self._settings = settings
        self._failures = 0

    async def run(self) -> None:
        """Read the listing at the source's interval, not at the same time in all pods."""
        while True:
            delay = self._source.refresh_seconds * random.uniform(0.9, 1.1)  # noqa: S311  spreads load, no secret
            try:
                identity = await read_identity(self._source, self._settings)
            except Failure as failure:
                self._note_failure(failure)
                delay = max(delay, failure.retry_after)
            except Exception as error:  # noqa: BLE001  an unexpected failure is reported, and the listing read again
                structlog.get_logger().exception("unexpected")
                self._note_failure(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}"))
            else:
                self._failures, self.message = 0, ""
                self.reading = note_read(self.reading, identity, time.time())
            await asyncio.sleep(delay)

    def _note_failure(self, failure: Failure) -> None:
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            self.message = failure.message[:_LONGEST_MESSAGE]
        structlog.get_logger().warning("not listed", model=self._source.model, reason=failure.reason)


async def read_identity(watched: WatchedSource, settings: Settings) -> str:
    """Return the identity of a listing; of a repository, that of all its models.

    Args:
        watched: The source.
        settings: The agent's settings.

    Raises:
        Failure: The source cannot be listed.
    """
    if not FORMATS[watched.format].is_repository:
        return (await open_source(watched.storage_uri, settings, watched.secret).list_files()).identity
    source = ModelSource(
        name=watched.model, format=watched.format, storage_uri=watched.storage_uri, secret=watched.secret
    )
    return combine_identities({part.source.name: part.identity for part in await list_models(source, settings)})


class SourceWatches:
    """The watches of a pod's manifest."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watches: dict[WatchedSource, tuple[SourceWatch, asyncio.Task[None]]] = {}

    def follow(self, sources: Iterable[WatchedSource]) -> None:
        """Watch the sources of a manifest. One that was watched before stays so, whatever the revision.

        Args:
            sources: The sources.
        """
        wanted = tuple(sources)
        for source in self._watches.keys() - set(wanted):
            self._watches.pop(source)[1].cancel()
        for source in wanted:
            if source not in self._watches:
                watch = SourceWatch(source, self._settings)
                self._watches[source] = (watch, asyncio.create_task(watch.run()))

    def report(self, fetched: Mapping[str, str]) -> tuple[SourceReport, ...]:
        """Return the reports of the sources.

        Args:
            fetched: Identity of the listing whose files the pod has, by name of the model; of a repository, those of
                all its models.
        """
        return tuple(
            SourceReport(
                model=source.model,
                fetched=combine_identities(fetched)
                if FORMATS[source.format].is_repository
                else fetched.get(source.model, ""),
                identity=watch.reading.identity,
                since=round(watch.reading.since, 3),
                message=watch.message,
            )
            for source, (watch, _) in self._watches.items()
        )

    async def close(self) -> None:
        """End all watches."""
        tasks = [task for _, task in self._watches.values()]
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)
