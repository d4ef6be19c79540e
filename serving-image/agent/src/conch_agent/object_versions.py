"""The object versions to fetch: those of the revision, if the bucket or the hub still has them.

In a bucket without versioning, and in other sources, the current files are fetched. The digest is verified in all
cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Listing, Source, VersionedSource
from conch_contract.object_versions import select_recordable

# Failures of the listing of versions after which the current files are fetched: they may be the revision's too.
_UNREADABLE: Final = frozenset({Reason.NOT_FOUND, Reason.ACCESS_DENIED})
_NO_FILES: Final = frozenset({Reason.NOT_FOUND, Reason.EMPTY})


async def list_files(source: Source, versions: Mapping[str, str]) -> tuple[Listing, str]:
    """Return the files in these versions; or the current files, and the reason why the versions cannot be read.

    Args:
        source: The source.
        versions: Object versions by path; empty: none are recorded.

    Raises:
        Failure: As `Source.list_files`.
    """
    if not versions or not isinstance(source, VersionedSource):
        return await source.list_files(), ""
    try:
        return await source.list_versions(versions), ""
    except Failure as failure:
        if failure.reason not in _UNREADABLE:
            raise
        problem = failure.message
    structlog.get_logger().warning("object versions cannot be read", source=source.uri, message=problem)
    try:
        return await source.list_files(), problem
    except Failure as failure:
        if failure.reason in _NO_FILES:
            raise Failure(failure.reason, f"{failure.message} {problem}") from failure
        raise


async def find_versions(source: Source, listing: Listing) -> dict[str, str]:
    """Return the versions of files, by path below the source's root; empty where they cannot be read or recorded.

    Args:
        source: The source.
        listing: The files.

    Raises:
        Failure: SourceChanged, or Unreachable. A store that only refuses to return versions is no failure.
    """
    if not isinstance(source, VersionedSource):
        return {}
    try:
        versions = await source.find_versions(listing)
    except Failure as failure:
        if failure.reason in {Reason.CHANGED, Reason.UNREACHABLE}:
            raise
        structlog.get_logger().warning("object versions are not known", source=source.uri, message=failure.message)
        return {}
    return select_recordable(versions)
