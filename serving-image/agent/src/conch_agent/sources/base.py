"""What a source of model files is: a listing, and bytes in order. Nothing here writes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.exclusions import is_excluded_path

LONGEST_PATH = 1024
MOST_FILES = 100_000

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Location:
    """A storageUri, and what the pod has to reach it.

    Attributes:
        uri: The storageUri.
        secret: Values of the storage Secret by key; empty without storage.secretRef.
        claims: The folder in which persistent volume claims are mounted by name.
    """

    uri: str
    secret: Mapping[str, str]
    claims: Path


@dataclass(frozen=True)
class Item:
    """One file of a source.

    `path` is relative to the source's root and safe; `tag` changes whenever the content does (an ETag);
    `size` is None where the server does not tell before it sends; `key` is the source's own name for it; `version` is
    the object version to read, empty for the present content.
    """

    path: PurePosixPath
    size: int | None
    tag: str
    key: str
    version: str = ""


@dataclass(frozen=True)
class Found:
    """One entry of a source as the source names it: `name` is relative to the root, and nothing is checked yet."""

    name: str
    size: int | None
    tag: str
    key: str
    version: str = ""


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


@runtime_checkable
class VersionedSource(Source, Protocol):
    """A source that may keep versions of its files, by path below its root (empty: the root itself is the file)."""

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the version of each file of a listing; none where one of them has none. Raises Failure."""

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return these files in these versions.

        Raises:
            Failure: NotFound where a version is gone, AccessDenied where it may not be read, and as `listing` does.
        """


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


def refuse_endless(count: int, uri: str) -> None:
    """Raise TooLarge while a store still lists: beside a model's files it may have as many that are left out."""
    if count > 2 * MOST_FILES:
        raise _too_many(uri)


def _too_many(uri: str) -> Failure:
    message = f"{uri} holds over {MOST_FILES} files: that is no model. Point storageUri at the model's folder."
    return Failure(Reason.TOO_LARGE, message)


def build_listing(found: Iterable[Found], uri: str) -> Listing:
    """Return the listing of what a folder or prefix holds: files only, by safe paths, without excluded names.

    An object store has no folders. Consoles and other tools write empty objects in their place: keys that end in a
    slash, or that are the folder of another key. These are left out.

    Raises:
        Failure: Empty, TooLarge, or UnsafePath where one name is both a file and a folder.
    """
    everything = list(found)
    kept = [each for each in everything if not is_excluded_path(each.name)]
    named = [(safe_path(each.name, uri), each) for each in kept if each.name and not each.name.endswith("/")]
    folders = {parent for each in everything for parent in PurePosixPath(each.name).parents}
    items = []
    for path, each in named:
        if path not in folders:
            items.append(Item(path, each.size, each.tag, each.key, each.version))
        elif each.size:
            message = (
                f"{uri} holds both a file {str(path)!r} of {each.size} bytes and files below a folder of that name, "
                "which no file system can hold. Rename or remove one of them."
            )
            raise Failure(Reason.UNSAFE_PATH, message)
    if not items:
        raise _empty(uri, [each.name for each in everything if each.name and each not in kept])
    if len(items) > MOST_FILES:
        raise _too_many(uri)
    return Listing(tuple(sorted(items, key=lambda item: item.path)))


def _empty(uri: str, excluded: list[str]) -> Failure:
    if excluded:
        names = ", ".join(sorted(excluded)[:8])
        message = f"{uri} holds only files that are never part of a model ({names}). Upload the model there."
        return Failure(Reason.EMPTY, message)
    message = f"{uri} holds no files. Check the path (is the prefix spelt as in the store?), or upload the model there."
    return Failure(Reason.EMPTY, message)
