"""Lists of words in the sentences of messages and descriptions."""

from collections.abc import Iterable


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
