"""The interface of sources of model files: a listing, and the bytes of each file. Sources are read-only."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.exclusions import is_excluded_path

LONGEST_PATH = 1024  # bytes, as of a key in an object store
LONGEST_NAME = 255  # bytes of a file's or folder's name, which a Linux file system holds
MOST_FILES = 100_000

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Location:
    """A storageUri, and the Secret and volumes of the pod for it.

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
    """A file of a source.

    Attributes:
        path: Its path below the source's root, which is safe.
        size: Its size in bytes; None: the server does not declare it.
        tag: A tag that changes with the content (an ETag).
        key: Its name in the source.
        version: The object version to read; empty: the current content.
        digest: The digest that its content must have, as in `conch_agent.digests`; empty: the source declares none.
        content: What identifies its content at all places of a model; empty: the tag does, at this place alone.
    """

    path: PurePosixPath
    size: int | None
    tag: str
    key: str
    version: str = ""
    digest: str = ""
    content: str = ""

    @property
    def mark(self) -> str:
        """What identifies the content in records of a fetch, so that it resumes; empty: nothing does."""
        return self.content or self.tag


@dataclass(frozen=True)
class Entry:
    """An entry of a source that is not checked yet. `name` is relative to the root; the other fields are as in Item."""

    name: str
    size: int | None
    tag: str
    key: str
    version: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Archives:
    """Archives whose members are files of the model, beside those that the source has as files.

    Attributes:
        items: The archives. The path of one is its name in messages.
        path: Path of the file or folder in them that is the model; empty: all members are.
        is_folder: True if the path can only be that of a folder.
        are_layers: True for layers of an image: each changes what those before it have.
    """

    items: tuple[Item, ...]
    path: str = ""
    is_folder: bool = False
    are_layers: bool = False


@dataclass(frozen=True)
class Listing:
    """The files of a source at the time of the listing.

    Attributes:
        items: The files.
        archives: The archives that have further files, or all of them; None: there are none.
    """

    items: tuple[Item, ...]
    archives: Archives | None = None

    @property
    def identity(self) -> str:
        """A hash over paths, sizes and tags. While it is the same, no fetch is needed."""
        lines = sorted(_describe(item) for item in self.items)
        if self.archives:
            lines.append(f"{self.archives.path}\0{self.archives.is_folder}\0{self.archives.are_layers}\n")
            lines += [_describe(item) for item in self.archives.items]  # their order counts
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def stored(self) -> tuple[Item, ...]:
        """All that the source has: files and archives."""
        return self.items + (self.archives.items if self.archives else ())

    @property
    def total(self) -> int:
        """The size of all files and archives whose size is known, in bytes."""
        return sum(item.size or 0 for item in self.stored)


def _describe(item: Item) -> str:
    return f"{item.path}\0{item.size}\0{item.tag}\n"


class Source(Protocol):
    """A source of model files."""

    uri: str

    async def list_files(self) -> Listing:
        """Return the files.

        Raises:
            Failure: Empty, NotFound, AccessDenied, ...
        """

    def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of a file in order.

        Args:
            item: The file.
            offset: Number of bytes to skip.

        Raises:
            Failure: The file cannot be read, or its tag has changed.
        """

    def find_local(self, item: Item) -> Path | None:
        """Return the path of a file on a mounted file system, for a hard link; None for all others.

        Args:
            item: The file.
        """


@runtime_checkable
class ConnectedSource(Source, Protocol):
    """A source whose connection several reads can share."""

    def connect(self) -> AbstractAsyncContextManager[object]:
        """Keep a connection while the block is active.

        Raises:
            Failure: There can be no connection.
        """


@runtime_checkable
class RangedSource(ConnectedSource, Protocol):
    """A source of which each part of a file costs only its own bytes."""

    def read_range(self, item: Item, start: int, end: int) -> AsyncGenerator[Buffer, None]:
        """Yield some bytes of a file in order.

        Args:
            item: The file, whose size is known.
            start: The first byte.
            end: The byte after the last.

        Raises:
            Failure: The file cannot be read, or its tag has changed.
        """


@runtime_checkable
class VersionedSource(Source, Protocol):
    """A source that may keep versions of its files, by path below its root.

    An empty path is the root itself: the file, or the folder of which all files have one version.
    """

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the versions of the files of a listing; empty if a file has no version, or if they are too long.

        Args:
            listing: The files.

        Raises:
            Failure: The versions cannot be read.
        """

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the files in the given versions.

        Args:
            versions: Versions by path.

        Raises:
            Failure: NotFound for a version that does not exist, AccessDenied for one that may not be read, and the
                failures of `list_files`.
        """


def parse_path(text: str, uri: str) -> PurePosixPath:
    """Return a text as a relative path that stays below its root.

    Args:
        text: The text.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: UnsafePath.

    >>> parse_path("1/model.onnx", "s3://b/m")
    PurePosixPath('1/model.onnx')
    """
    parts = text.split("/")
    if problem := _find_length_problem(parts):
        message = f"{uri} holds the name {text[:200]!r}, {problem}. Rename it, or point storageUri at another folder."
        raise Failure(Reason.UNSAFE_PATH, message)
    broken = (
        not text
        or any(part in {"", ".", ".."} for part in parts)
        or "\\" in text
        or any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text)
    )
    if broken:
        raise build_unsafe(text, uri)
    return PurePosixPath(text)


def build_unsafe(name: str, uri: str) -> Failure:
    """Return the failure of a name that no file of a model can have.

    Args:
        name: The name.
        uri: The storageUri, with which the message begins.
    """
    message = (
        f"{uri} holds the name {name[:200]!r}, which would leave its folder or cannot be a file's: a model's files need"
        " plain relative names. Rename or remove it."
    )
    return Failure(Reason.UNSAFE_PATH, message)


def find_below(name: str, path: str, *, is_folder: bool) -> str:
    """Return the path of a file below a file or folder; empty: it is not below.

    Args:
        name: The path of the file.
        path: The path of the file or folder; empty: the root.
        is_folder: True if it can only be a folder.

    >>> [find_below("a/b", path, is_folder=False) for path in ("", "a", "a/b", "b")]
    ['a/b', 'b', 'b', '']
    """
    if not path:
        return name
    if name == path and not is_folder:
        return PurePosixPath(name).name
    folder = f"{path}/"
    return name.removeprefix(folder) if name.startswith(folder) else ""


def _find_length_problem(parts: list[str]) -> str:
    """Return why no file can have the name; empty: one can. A file system has the lengths of UTF-8."""
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "which is not UTF-8"
    if max(lengths) > LONGEST_NAME:
        return f"of which one part has {max(lengths)} bytes: a file system holds names of up to {LONGEST_NAME} bytes"
    if (total := sum(lengths) + len(lengths) - 1) > LONGEST_PATH:
        return f"which has {total} bytes: the agent fetches paths of up to {LONGEST_PATH} bytes"
    return ""


def build_too_large(uri: str) -> Failure:
    """Return the failure of a source with too many files.

    Args:
        uri: The storageUri, with which the message begins.
    """
    message = f"{uri} holds over {MOST_FILES} files: that is no model. Point storageUri at the model's folder."
    return Failure(Reason.TOO_LARGE, message)


def build_listing(entries: Iterable[Entry], uri: str) -> Listing:
    """Return the listing of a folder or prefix: files with safe paths, without excluded names.

    An object store has no folders. Consoles and other tools write empty objects in their place: keys that end in a
    slash, or that are the folder of another key. These are left out.

    Args:
        entries: The entries of the folder or prefix.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: Empty, TooLarge, FetchFailed for a path that is listed twice, or UnsafePath for a name that is both a
            file and a folder, or that no file can have.
    """
    entries = list(entries)
    included = [entry for entry in entries if not is_excluded_path(entry.name)]
    files = [(parse_path(entry.name, uri), entry) for entry in included if entry.name and not entry.name.endswith("/")]
    folders = {parent for entry in entries for parent in PurePosixPath(entry.name).parents}
    _refuse_repeated([path for path, _ in files], uri)
    items = []
    for path, entry in files:
        if path not in folders:
            items.append(Item(path, entry.size, entry.tag, entry.key, entry.version, entry.digest))
        elif entry.size:
            message = (
                f"{uri} holds both a file {str(path)!r} of {entry.size} bytes and files below a folder of that name, "
                "which no file system can hold. Rename or remove one of them."
            )
            raise Failure(Reason.UNSAFE_PATH, message)
    if not items:
        raise _build_empty(uri, [entry.name for entry in entries if entry.name and entry not in included])
    if len(items) > MOST_FILES:
        raise build_too_large(uri)
    return Listing(tuple(sorted(items, key=lambda item: item.path)))


def _refuse_repeated(paths: list[PurePosixPath], uri: str) -> None:
    """Refuse a path that is listed twice. Names that differ in case or Unicode form are different files on Linux."""
    if len(set(paths)) < len(paths):
        repeated = next(path for path, count in Counter(paths).items() if count > 1)
        message = (
            f"{uri}: the server lists {str(repeated)!r} more than once, so its content is not known. Correct the"
            " server, or upload the model again."
        )
        raise Failure(Reason.FETCH_FAILED, message)


def _build_empty(uri: str, excluded: list[str]) -> Failure:
    if excluded:
        names = ", ".join(sorted(excluded)[:8])
        message = f"{uri} holds only files that are never part of a model ({names}). Upload the model there."
        return Failure(Reason.EMPTY, message)
    message = f"{uri} holds no files. Check the path (is the prefix spelt as in the store?), or upload the model there."
    return Failure(Reason.EMPTY, message)
