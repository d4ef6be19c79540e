"""The files of a model's folder, as an agent fetches them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from conch.cli.model.environment import name_environment
from conch.cli.options import CommandError
from conch_agent.reasons import Failure
from conch_agent.sources.base import MOST_FILES, parse_path
from conch_agent.sources.exclusions import is_excluded
from conch_contract.sentences import join_some

_INCOMPLETE: Final = ".conch-incomplete"  # a hidden name, which no agent fetches


@contextmanager
def report_failures() -> Iterator[None]:
    """Have failures of the agent's code, and errors of files, as errors of the command.

    Raises:
        CommandError: The block fails.
    """
    try:
        yield
    except Failure as failure:
        raise CommandError(name_environment(str(failure))) from None
    except OSError as error:
        problem = f"{error.filename or 'a file'}: {error.strerror or error}"
        raise CommandError(
            f"{problem}; correct the path, its rights or the free space, and run the command again"
        ) from None


def list_paths(folder: Path) -> tuple[PurePosixPath, ...]:
    """Return the files of a folder in sorted order, without names that are never part of a model.

    Args:
        folder: The folder.

    Raises:
        CommandError: It is no folder, has no files or too many, has links, devices or other special files, or is what
            an interrupted command has left.
        Failure: UnsafePath for a name that no agent fetches.
    """
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "does not exist"
        raise CommandError(f"{folder} {problem}; expected the folder with the files of a model")
    _refuse_incomplete(folder)
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


@contextmanager
def make_output(folder: Path, source: Path) -> Iterator[None]:
    """Make the folder of a command's output, which is incomplete until the block ends, and is removed if it fails.

    After a command that was killed its mark stays, by which other commands refuse the folder.

    Args:
        folder: The folder, which is absent or empty.
        source: The folder that is read.

    Raises:
        CommandError: It has files already, or is in the source.
    """
    refuse_output_inside(folder, source)
    is_new = not folder.exists()
    if not is_new and folder.is_dir():
        _refuse_incomplete(folder)
    if not is_new and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists and is not empty; name another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _INCOMPLETE
    mark.touch()
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if is_new:
            folder.rmdir()
        raise
    mark.unlink()


def refuse_output_inside(target: Path, source: Path) -> None:
    """Refuse an output that would be a part of the model the next time.

    Args:
        target: The file or folder to write.
        source: The folder that is read.

    Raises:
        CommandError: It is in the source.
    """
    if target.resolve().is_relative_to(source.resolve()) and target.resolve() != source.resolve():
        raise CommandError(f"{target} is in {source}, and would be a part of the model; name a path outside of it")


def _refuse_incomplete(folder: Path) -> None:
    if (folder / _INCOMPLETE).exists():
        raise CommandError(
            f"{folder} is incomplete: the command that wrote it was interrupted; remove it, and run that command again"
        )
