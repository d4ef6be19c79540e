"""The unpacking of archives into a folder, within bounds.

Files, folders, and hard links to files before them are unpacked. Owners, modes and times are not: files are those of
the agent. What would leave the folder, or be something else than a file, is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.archives.layers import Changes
from conch_agent.archives.stream import Stream
from conch_agent.archives.tar import Kind, Member, read_members
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import MOST_FILES, Archives, find_below, parse_path
from conch_agent.sources.exclusions import is_excluded_path
from conch_contract.sentences import join_some

_MOST_OF_AN_IMAGE: Final = 10 * MOST_FILES  # members, most of which are outside of the model's folder
_LONGEST_NAME: Final = 4096  # of a path outside of the model's folder, as PATH_MAX
_MOST_TOPS: Final = 100  # that are kept for a message
_MODE: Final = 0o644
_OPEN: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Limits:
    """What members may take.

    Attributes:
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
        reserve: Called before a file is written, with its name for messages, its size, and the size of all before it;
            it raises if the file does not fit.
    """

    max_bytes: int
    reserve: Callable[[str, int, int], None]


class Unpacker:
    """Unpacks archives into a folder."""

    def __init__(self, uri: str, archives: Archives, target: Path, limits: Limits) -> None:
        """Create the unpacker.

        Args:
            uri: The storageUri, with which messages begin.
            archives: What the archives are.
            target: The folder, which exists and is empty.
            limits: The limits.
        """
        self._uri = uri
        self._archives = archives
        self._target = target
        self._limits = limits
        self._size = 0
        self._count = 0
        self._files: dict[str, Path] = {}  # of the archive that is read, by path in it
        self._later = Changes()  # of the layers after the one that is read
        self._changes = Changes()
        self._tops: dict[str, None] = {}

    def run(self, files: Sequence[Path]) -> Iterator[None]:
        """Unpack the archives, a step at a time: a caller that stops leaves an incomplete folder.

        Args:
            files: The files of the archives, in their order.

        Raises:
            Failure: UnsafePath, TooLarge, Unsupported, NotFound for a path that no archive has, or what `reserve`
                raises.
            OSError: A file cannot be written.
        """
        numbered = list(zip(self._archives.items, files, strict=True))
        for item, file in reversed(numbered) if self._archives.are_layers else numbered:
            with file.open("rb", buffering=0) as opened:
                yield from self._unpack(Stream(opened, f"{self._uri}: {item.path}"))
            self._later.merge(self._changes)
            self._changes, self._files = Changes(), {}
        if next(self._target.iterdir(), None) is None:
            raise self._build_not_found()

    def add(self, name: str, file: Path) -> None:
        """Link a file that the source has beside its archives.

        Args:
            name: Its path in the folder.
            file: The file.

        Raises:
            Failure: UnsafePath: there is a file or folder of that path.
        """
        self._link(file, self._target / name, self._uri)

    def _unpack(self, stream: Stream) -> Iterator[None]:
        most = _MOST_OF_AN_IMAGE if self._archives.are_layers else MOST_FILES
        for member, content in read_members(stream):
            self._count += 1
            if self._count > most or len(self._later) + len(self._changes) > 2 * MOST_FILES:
                message = (
                    f"{stream.place} has over {most} members, or over {2 * MOST_FILES} files, folders and whiteouts in"
                    f" the model's folder, at {member.name[:200]!r}: that is no model. Pack its folder alone."
                )
                raise Failure(Reason.TOO_LARGE, message)
            path = self._select(member, stream.place)
            if path and member.kind == Kind.FILE:
                yield from self._write(member, path, content, stream.place)
            elif path and member.kind == Kind.FOLDER:
                with self._refuse_twice(path, stream.place):
                    path.mkdir(parents=True, exist_ok=True)
            elif path:
                self._link_member(member, path, stream.place)
            for _ in content:  # of a member that is not unpacked
                yield
            yield

    def _select(self, member: Member, place: str) -> Path | None:
        """Return the path to which a member is unpacked; None: it is not of the model."""
        name = _clean(member.name, place)
        if len(self._tops) < _MOST_TOPS:
            self._tops[name.partition("/")[0]] = None
        is_folder = member.kind == Kind.FOLDER
        if not name or self._is_hidden(name, is_folder=is_folder):
            return None
        root = self._archives.path
        below = find_below(name, root, is_folder=self._archives.is_folder or is_folder)
        if not below and not is_folder and f"{root}/".startswith(f"{name}/"):
            raise _build_unsafe(place, f"has {name!r} as {member.kind}, and the model is below it")
        if not below or is_excluded_path(below):
            return None
        path = self._target / parse_path(below, place)
        self._changes.add(name, is_folder=is_folder)
        if member.kind in {Kind.FILE, Kind.HARD_LINK}:
            self._files.setdefault(name, path)
        return path

    def _is_hidden(self, name: str, *, is_folder: bool) -> bool:
        """Return True for a member of a layer that is no part of the image."""
        if not self._archives.are_layers:
            return False
        return self._changes.add_whiteout(name) or self._later.hide(name, is_folder=is_folder)

    def _write(self, member: Member, path: Path, content: Iterator[memoryview], place: str) -> Iterator[None]:
        what = f"{place} has the member {member.name[:200]!r}"
        self._check_size(member.size, what)
        self._limits.reserve(what, member.size, self._size)
        self._size += member.size
        with self._refuse_twice(path, place):
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(path, _OPEN, _MODE)
        with os.fdopen(opened, "wb", buffering=0) as file:
            for piece in content:
                while piece:
                    piece = piece[file.write(piece) :]  # noqa: PLW2901  a disk that becomes full takes some at first
                yield

    def _link_member(self, member: Member, path: Path, place: str) -> None:
        """Link a member to a file before it in its archive."""
        problem = f"has the member {member.name[:200]!r}, which is {member.kind}"
        if member.kind != Kind.HARD_LINK:
            to = f" to {member.link[:200]!r}" if member.kind == Kind.SYMBOLIC_LINK else ""
            raise _build_unsafe(place, f"{problem}{to}")
        if _leads_out(member.link):
            raise _build_unsafe(place, f"{problem} to {member.link[:200]!r}, out of the model's folder")
        file = self._files.get(_clean(member.link, place))
        if file is None or file == path:
            raise _build_unsafe(place, f"{problem} to {member.link[:200]!r}, and the model has no such file before it")
        size = file.stat().st_size
        self._check_size(size, f"{place} has the member {member.name[:200]!r}")
        self._size += size
        self._link(file, path, place)

    def _check_size(self, size: int, what: str) -> None:
        most = self._limits.max_bytes
        if most and self._size + size > most:
            message = (
                f"{what} of {size} bytes after {self._size} bytes of others; this installation takes models up to"
                f" {most}."
            )
            raise Failure(Reason.TOO_LARGE, message)

    def _link(self, file: Path, path: Path, place: str) -> None:
        with self._refuse_twice(path, place):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, path)

    @contextmanager
    def _refuse_twice(self, path: Path, place: str) -> Iterator[None]:
        """Refuse a second file of a path, and a file that is a folder too."""
        try:
            yield
        except (FileExistsError, NotADirectoryError):
            name = path.relative_to(self._target).as_posix()[:200]
            raise _build_unsafe(place, f"has {name!r} twice, or a file where its folder is") from None

    def _build_not_found(self) -> Failure:
        folder = self._archives.path or "files"
        tops = join_some(repr(name[:200]) for name in self._tops if name) if any(self._tops) else "nothing"
        message = (
            f"{self._uri}: the archives have no file of a model in {folder!r}; at their top they have {tops}. Write the"
            " folder of the model as the path in storageUri."
        )
        return Failure(Reason.NOT_FOUND, message)


def _clean(name: str, place: str) -> str:
    """Return the path of a member: `tar` writes `./` before names, and `/` after those of folders."""
    if len(name) > _LONGEST_NAME:
        problem = f"has a member whose name has {len(name)} letters ({name[:200]!r}), and Linux takes {_LONGEST_NAME}"
        raise _build_unsafe(place, problem)
    cleaned = name
    while cleaned.startswith("./"):
        cleaned = cleaned[2:]
    cleaned = "" if cleaned == "." else cleaned.rstrip("/")
    if _leads_out(name):
        raise _build_unsafe(place, f"has the member {name[:200]!r}, whose name leads out of the model's folder")
    return cleaned


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _build_unsafe(place: str, problem: str) -> Failure:
    message = (
        f"{place} {problem}. The agent unpacks plain files and folders: pack the model anew, with files in place of"
        " links (tar --dereference) and with each name once, below its folder."
    )
    return Failure(Reason.UNSAFE_PATH, message)
