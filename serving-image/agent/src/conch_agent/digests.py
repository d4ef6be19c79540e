"""Digests that a source declares for its files before they are fetched.

A digest is `sha256:` and the SHA-256 of the content, or `git:` and the id of the content as a Git blob: the SHA-1 over
`blob <size>`, a NUL byte and the content. Each is in hexadecimal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Item

_GIT: Final = "git:"
_CHUNK: Final = 4 * 1024 * 1024


def compute_git_digest(size: int, chunks: Iterable[bytes | bytearray]) -> str:
    r"""Return the digest of a content as a Git blob.

    Args:
        size: Its size in bytes.
        chunks: Its bytes in order.

    >>> compute_git_digest(6, [b"hel", b"lo\n"])
    'git:ce013625030ba8dba906f756967f9e9ca394464a'
    """
    state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        state.update(chunk)
    return f"{_GIT}{state.hexdigest()}"


def check_digest(item: Item, uri: str, sha256: str, size: int, chunks: Iterable[bytes | bytearray]) -> None:
    """Refuse a content without the digest that its source declares.

    Args:
        item: The file.
        uri: The storageUri, with which the message begins.
        sha256: SHA-256 of the content, in hexadecimal.
        size: Size of the content in bytes.
        chunks: Bytes of the content in order, which are read for a digest of Git alone.

    Raises:
        Failure: DigestMismatch.
    """
    if not item.digest:
        return
    actual = compute_git_digest(size, chunks) if item.digest.startswith(_GIT) else f"sha256:{sha256}"
    if actual != item.digest:
        message = (
            f"{uri}: {item.path} was fetched with the digest {actual}, and {item.digest} is declared; the agent fetches"
            " it again. If this message stays, a server or proxy between changes or truncates files: correct it, or"
            " upload the file again."
        )
        raise Failure(Reason.DIGEST_MISMATCH, message)


def read_chunks(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in order.

    Args:
        file: The file.
    """
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
