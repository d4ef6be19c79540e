"""Lists of words in the sentences of messages and descriptions."""

from collections.abc import Iterable
from typing import Final

_MAX_NAMES: Final = 16


def join_words(words: Iterable[str], conjunction: str) -> str:
    """Return words with commas, and a conjunction before the last one.

    Args:
        words: The words, at least one.
        conjunction: Such as `or`.

    >>> join_words(("s3", "pvc", "file"), "and"), join_words(("s3",), "and")
    ('s3, pvc and file', 's3')
    """
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def join_some(names: Iterable[str]) -> str:
    """Return the first 16 names, and how many more there are.

    Args:
        names: The names, at least one.

    >>> join_some(["a", "b"]), join_some(map(str, range(18)))[-17:]
    ('a and b', '14, 15 and 2 more')
    """
    found = tuple(names)
    more = len(found) - _MAX_NAMES
    return join_words((*found[:_MAX_NAMES], *([f"{more} more"] if more > 0 else ())), "and")
