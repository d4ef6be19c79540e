"""The places of a model's files: storageUri, and then its mirrors, until one has them.

What places have in common is the digest of the content. Where it is known before the fetch, a file that breaks at a
byte goes on at the next place, and the digest decides afterwards. Where it is not, the files of a model are those of
one place: two places may have two versions of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Item, Listing
from conch_contract.manifest import ModelSource

T = TypeVar("T")

LONGEST: Final = 1800  # characters of the message about all places; a status has 2,000 of a message
# Failures of a place, after which the next one is tried. The others are of the pod, or of the model at all places.
_OF_PLACE: Final = frozenset(
    {
        Reason.BUCKET_NOT_FOUND,
        Reason.ACCESS_DENIED,
        Reason.SECRET_MISSING,
        Reason.INVALID_SECRET,
        Reason.EMPTY,
        Reason.NOT_FOUND,
        Reason.UNREACHABLE,
        Reason.INSECURE_ENDPOINT,
        Reason.UNSUPPORTED,
        Reason.FETCH_FAILED,
        Reason.CHANGED,
        Reason.CONTENT_CHANGED,
        Reason.DIGEST_MISMATCH,
        Reason.SIGNATURE_MISSING,
        Reason.INVALID_SIGNATURE,
        Reason.NOT_SIGNED,
        Reason.NOT_ENCRYPTED,
        Reason.DECRYPTION_FAILED,
    }
)


async def try_places(
    places: Sequence[ModelSource], attempt: Callable[[ModelSource, Sequence[Failure]], Awaitable[T]]
) -> T:
    """Return the result of the first place that has the files.

    Args:
        places: The model at storageUri, and then at each mirror.
        attempt: Fetches from a place; its second argument has the failures of the places before.

    Raises:
        Failure: Of the only place, or of the pod; with several places the reason is that of storageUri, and the message
            has all of them.
    """
    failures: list[Failure] = []
    for place in places:
        try:
            return await attempt(place, failures)
        except Failure as failure:
            if failure.reason not in _OF_PLACE:
                raise
            failures.append(failure)
            if len(places) > 1:
                structlog.get_logger().warning("a place failed", reason=failure.reason, message=failure.message)
    raise combine(failures)


def combine(failures: Sequence[Failure]) -> Failure:
    """Return the failure of a model of which all places have failed.

    Args:
        failures: Their failures, at least one, in the order of the places.

    >>> both = combine([Failure(Reason.UNREACHABLE, "a is away."), Failure(Reason.NOT_FOUND, "b has no m.")])
    >>> both.reason.value, both.is_outage
    ('Unreachable', False)
    >>> both.message
    'storageUri and all of storage.mirrors have failed. storageUri: a is away. mirrors[0]: NotFound: b has no m.'
    """
    first, *others = failures
    if not others:
        return first
    share = LONGEST // len(failures)
    parts = [f"storageUri: {_cut(first.message, share)}"]
    parts += [
        f"mirrors[{index}]: {_cut(f'{failure.reason}: {failure.message}', share)}"
        for index, failure in enumerate(others)
    ]
    message = f"storageUri and all of storage.mirrors have failed. {' '.join(parts)}"
    delay = min(failure.retry_after for failure in failures)  # one that refuses retries for long holds no other
    return Failure(first.reason, message, delay, is_outage=all(failure.is_outage for failure in failures))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def without_query(uri: str) -> str:
    """Return a URI for messages without its query, which may be a signature that gives access.

    Args:
        uri: The URI of a place.

    >>> without_query("https://host/m.onnx?sig=c2ln"), without_query("s3://models/m")
    ('https://host/m.onnx', 's3://models/m')
    """
    return uri.partition("?")[0]


class Places:
    """What is known of the places of one content.

    Attributes:
        mixes: True while files of several places may make the content.
    """

    def __init__(self, uri: str) -> None:
        """Create it without knowledge.

        Args:
            uri: The storageUri, whose files have the same records as those of a model without mirrors.
        """
        self.mixes = True
        self._uri = uri
        self._refused: dict[tuple[str, str], Failure] = {}

    def mark(self, listing: Listing, place: ModelSource, expected: str) -> Listing:
        """Return a listing whose files have marks that are valid at all places, or at this one alone.

        Args:
            listing: Files and archives of the place.
            place: The model at this place.
            expected: Digest of the content; empty: it is not known.

        Raises:
            Failure: This listing is known not to be of the content.
        """
        if failure := self._refused.get((place.storage_uri, listing.identity)):
            raise failure
        known = expected if self.mixes and not listing.archives else ""
        archives = listing.archives
        if archives:  # of one content there may be several archives
            archives = replace(archives, items=tuple(self._mark(item, place, "") for item in archives.items))
        return Listing(tuple(self._mark(item, place, known) for item in listing.items), archives)

    def refuse(self, listing: Listing, place: ModelSource, failure: Failure) -> None:
        """Note that the files of a listing are not the content, so that they are not fetched again.

        Args:
            listing: The listing.
            place: The model at this place.
            failure: The failure.
        """
        if all(item.tag for item in listing.stored):  # otherwise another content may have the same listing
            self._refused[place.storage_uri, listing.identity] = failure

    def _mark(self, item: Item, place: ModelSource, expected: str) -> Item:
        """Return a file with its content: its digest, its path in a known content, or its tag at a mirror."""
        is_known = item.digest or expected
        at_mirror = f"{place.storage_uri} {item.tag}" if item.tag and place.storage_uri != self._uri else ""
        return replace(item, content=(item.digest or f"{expected} {item.path}") if is_known else at_mirror)
