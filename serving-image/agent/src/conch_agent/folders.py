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
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100  # fcntl.h: paths are relative to the working directory
_RENAME_EXCHANGE: Final = 2  # stdio.h
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def find_trash(downloads: Path, name: str) -> Path:
    """Return the name of a model folder before it is deleted, which no model's folder can have.

    Args:
        downloads: The folder of fetched files, on the repository's file system.
        name: Name of the model, which may be as long as a file's name can be.
    """
    return downloads / f".removed-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder, or a symbolic link, to its target, and delete what was there.

    Args:
        folder: The folder, on the target's file system.
        target: Its new path.

    Raises:
        OSError: It is not renamed, and what was at the target is unchanged.
    """
    if not os.path.lexists(target):
        folder.rename(target)
        return
    exchange(folder, target)
    delete_tree(folder)


def exchange(one: Path, other: Path) -> None:
    """Exchange two folders or symbolic links in one step, or in three where the file system cannot (such as NFS).

    Args:
        one: The first.
        other: The second, on the same file system.

    Raises:
        OSError: They are not exchanged.
    """
    if not _LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return
    number = ctypes.get_errno()
    if number not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    between = one.with_name(f"{one.name}-exchanged")
    delete_tree(between)
    other.rename(between)
    one.rename(other)
    between.rename(one)


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
    """Delete a folder, or a symbolic link and the folder to which it leads; an absent one is none.

    Args:
        folder: The folder.
    """
    if folder.is_symlink():
        shutil.rmtree(folder.resolve(), ignore_errors=True)
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
