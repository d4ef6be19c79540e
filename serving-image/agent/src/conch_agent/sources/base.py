"""What a source of model files is: a listing, and bytes in order. Nothing here writes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from conch_agent.reasons import Failure, Reason

LONGEST_PATH = 1024
MOST_FILES = 100_000

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Item:
    """One file of a source.

    `path` is relative to the source's root and safe; `tag` changes whenever the content does (an ETag);
    `size` is None where the server does not tell before it sends; `key` is the source's own name for it.
    """

    path: PurePosixPath
    size: int | None
    tag: str
    key: str


@dataclass(frozen=True)
class Listing:
    """All files of a source at one moment."""

    items: tuple[Item, ...]

    @property
    def identity(self) -> str:
        """A hash that is equal for equal paths, sizes and tags: nothing to fetch when it has not changed."""
        lines = sorted(f"{item.path}\0{item.size}\0{item.tag}\n" for item in self.items)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def total(self) -> int:
        """The bytes of all files whose size is known."""
        return sum(item.size or 0 for item in self.items)


class Source(Protocol):
    """A place that holds model files."""

    uri: str

    async def listing(self) -> Listing:
        """Return all files; raises Failure (Empty, NotFound, AccessDenied, ...)."""

    def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the file's bytes from `offset` on, in order; raises Failure, also when its tag changed."""

    def local(self, item: Item) -> Path | None:
        """Return the file itself where it is on a mounted file system, for a link instead of a read."""


def safe_path(text: str, uri: str) -> PurePosixPath:
    """Return `text` as a relative path that stays below its root, or raise UnsafePath.

    >>> safe_path("1/model.onnx", "s3://b/m")
    PurePosixPath('1/model.onnx')
    """
    parts = text.split("/")
    broken = (
        not text
        or len(text) > LONGEST_PATH
        or any(part in {"", ".", ".."} for part in parts)
        or "\\" in text
        or any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text)
    )
    if broken:
        message = (
            f"{uri} holds the name {text[:200]!r}, which would leave its folder or cannot be a file's: "
            "a model's files need plain relative names. Rename or remove it."
        )
        raise Failure(Reason.UNSAFE_PATH, message)
    return PurePosixPath(text)


def complete(items: list[Item], uri: str) -> Listing:
    """Return the listing of `items`, or say that there is none or that there are too many."""
    if not items:
        message = (
            f"{uri} holds no files. Check the path (is the prefix spelt as in the store?), or upload the model there."
        )
        raise Failure(Reason.EMPTY, message)
    if len(items) > MOST_FILES:
        message = f"{uri} holds over {MOST_FILES} files: that is no model. Point storageUri at the model's folder."
        raise Failure(Reason.TOO_LARGE, message)
    return Listing(tuple(sorted(items, key=lambda item: item.path)))
