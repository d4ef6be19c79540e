"""Folders that others read: each is replaced, and removed, in one step.

Triton lists its model repository for its index, and does not report a model whose folder is away, though it serves it:
the pod would leave the endpoints for a moment.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100  # fcntl.h: paths are relative to the working directory
_RENAME_EXCHANGE: Final = 2  # stdio.h
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_TRASH: Final = ".removed-"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def find_trash(downloads: Path, name: str) -> Path:
    """Return the name of a model folder before it is deleted, which no model's folder can have.

    Args:
        downloads: The folder of fetched files, on the repository's file system.
        name: Name of the model, which may be as long as a file's name can be.
    """
    return downloads / f"{_TRASH}{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def list_trash(downloads: Path, name: str) -> tuple[Path, Path]:
    """Return all names of a model folder that is being replaced or deleted: as in find_trash, and while it is away."""
    trash = find_trash(downloads, name)
    return trash, _find_former(trash)


def empty_trash(downloads: Path) -> None:
    """Delete what a killed process left of replaced and deleted model folders."""
    for folder in downloads.glob(f"{_TRASH}*"):
        delete_tree(folder)


def put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder, or a symbolic link, to its target, and delete what was there.

    Args:
        folder: The folder, on the target's file system.
        target: Its new path.

    Raises:
        OSError: It is not renamed, and what was at the target is there.
    """
    if not os.path.lexists(target):
        folder.rename(target)
    elif _exchange(folder, target):
        delete_tree(folder)
    else:
        _replace(folder, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders or symbolic links in one step; return False if the file system cannot, such as NFS.

    Raises:
        OSError: They are not exchanged.
    """
    if not _LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _replace(folder: Path, target: Path) -> None:
    """Do as put_in_place in two steps, between which the target is away."""
    former = _find_former(folder)
    delete_tree(former)
    target.rename(former)
    try:
        folder.rename(target)
    except OSError:
        former.rename(target)
        raise
    delete_tree(former)


def _find_former(folder: Path) -> Path:
    """Return the name that the former target has until a folder is in its place."""
    return folder.with_name(f"{folder.name}-former")


def remove_folder(folder: Path, trash: Path) -> None:
    """Delete a folder, which leaves its parent in one step.

    Args:
        folder: The folder.
        trash: The name to which it is renamed before it is deleted, on the same file system.
    """
    delete_tree(trash)
    if os.path.lexists(folder):
        folder.rename(trash)
        delete_tree(trash)


def delete_tree(folder: Path) -> None:
    """Delete a folder, or a symbolic link and the folder to which it leads. What cannot be deleted stays.

    Args:
        folder: The folder; an absent one is none.
    """
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
        return
    shutil.rmtree(os.path.realpath(folder), ignore_errors=True)  # Path.resolve raises where a link leads to itself
    with suppress(OSError):
        folder.unlink()
