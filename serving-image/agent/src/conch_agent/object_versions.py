"""Which versions of a model's objects are fetched: those that the revision serves, where the bucket still has them.

In a bucket without versioning, and in other sources, the present files are fetched; the digest decides in every case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Listing, Source, VersionedSource
from conch_contract.object_versions import encode_versions

# What ends the reading of versions and not the fetch: the present files may be the revision's too.
_UNREADABLE: Final = frozenset({Reason.NOT_FOUND, Reason.ACCESS_DENIED})
_NO_FILES: Final = frozenset({Reason.NOT_FOUND, Reason.EMPTY})


async def list_files(source: Source, versions: Mapping[str, str]) -> tuple[Listing, str]:
    """Return the files in these versions, or else the present ones and the sentence that says why.

    Raises:
        Failure: as `Source.listing`.
    """
    if not versions or not isinstance(source, VersionedSource):
        return await source.listing(), ""
    try:
        return await source.list_versions(versions), ""
    except Failure as failure:
        if failure.reason not in _UNREADABLE:
            raise
        unread = failure.message
    structlog.get_logger().warning("object versions cannot be read", source=source.uri, message=unread)
    try:
        return await source.listing(), unread
    except Failure as failure:
        if failure.reason in _NO_FILES:
            raise Failure(failure.reason, f"{failure.message} {unread}") from failure
        raise


async def find_versions(source: Source, listing: Listing) -> dict[str, str]:
    """Return the version of each file, by path below the source's root; none where they cannot be had or recorded.

    Raises:
        Failure: SourceChanged, or Unreachable. A store that only refuses to tell versions keeps no model from serving.
    """
    at_least = encode_versions({str(item.path): "-" for item in listing.items})
    if not at_least or not isinstance(source, VersionedSource):
        return {}
    try:
        found = await source.find_versions(listing)
    except Failure as failure:
        if failure.reason in {Reason.CHANGED, Reason.UNREACHABLE}:
            raise
        structlog.get_logger().warning("object versions are not known", source=source.uri, message=failure.message)
        return {}
    return found if encode_versions(found) else {}
