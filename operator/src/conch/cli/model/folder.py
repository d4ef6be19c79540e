"""The files of a model's folder, as an agent fetches them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from conch.cli.options import CommandError
from conch_agent.reasons import Failure
from conch_agent.sources.base import MOST_FILES, parse_path
from conch_agent.sources.exclusions import is_excluded
from conch_contract.sentences import join_some


@contextmanager
def report_failures() -> Iterator[None]:
    """Have failures of the agent's code, and errors of files, as errors of the command.

    Raises:
        CommandError: The block fails.
    """
    try:
        yield
    except Failure as failure:
        raise CommandError(str(failure)) from None
    except OSError as error:
        raise CommandError(f"{error.filename or 'a file'}: {error.strerror or error}") from None


def list_paths(folder: Path) -> tuple[PurePosixPath, ...]:
    """Return the files of a folder in sorted order, without names that are never part of a model.

    Args:
        folder: The folder.

    Raises:
        CommandError: It is no folder, has no files or too many, or has links, devices or other special files.
        Failure: UnsafePath for a name that no agent fetches.
    """
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder; expected the folder with the files of a model")
    found: list[PurePosixPath] = []
    special: list[PurePosixPath] = []
    for path, is_regular in _walk(folder, PurePosixPath()):
        (found if is_regular else special).append(path)
    if special:
        raise CommandError(
            f"{folder} has links, devices or other special files: {join_some(map(str, special))}; put regular files in"
            " their place"
        )
    if not found:
        raise CommandError(f"{folder} has no files; expected the folder with the files of a model")
    if len(found) > MOST_FILES:
        raise CommandError(f"{folder} has {len(found)} files, and an agent fetches up to {MOST_FILES}; remove others")
    return tuple(sorted(parse_path(str(path), str(folder)) for path in found))


def _walk(folder: Path, below: PurePosixPath) -> Iterator[tuple[PurePosixPath, bool]]:
    """Yield the path of each file below a folder, and whether it is a regular file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_excluded(entry.name):
                continue
            path, mode = below / entry.name, entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from _walk(Path(entry.path), path)
            else:
                yield path, stat.S_ISREG(mode)


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Args:
        file: The file.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_output(folder: Path) -> None:
    """Make the folder of a command's output.

    Args:
        folder: The folder, which is absent or empty.

    Raises:
        CommandError: It has files already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists and is not empty; name another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
