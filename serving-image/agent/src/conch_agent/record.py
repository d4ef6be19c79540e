"""Records of fetched files, JSON files with which a fetch resumes after a restart of the agent."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from conch_contract.parsing import parse_json

_BLOCK: Final = 4 * 1024 * 1024
_LONGEST: Final = 64 * 1024  # bytes of a record
_OWN_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link, and no wait for the other end of a pipe


@dataclass(frozen=True)
class Record:
    """State of a file on disk.

    Attributes:
        tag: What identifies the content of the whole file: `Item.mark`.
        size: Size of the whole file in bytes; None: unknown.
        offset: Number of bytes on disk.
        sha256: Digest of these bytes.
        done: True if the file is complete.
    """

    tag: str
    size: int | None
    offset: int
    sha256: str
    done: bool = False


def read_record(file: Path) -> Record | None:
    """Return the record; None where there is none, or none that can be read.

    Args:
        file: The file of the record.
    """
    try:
        return Record(**parse_json(read_text(file, _LONGEST)))
    except (OSError, ValueError, TypeError):
        return None


def write_record(file: Path, record: Record) -> None:
    """Write a record atomically.

    Args:
        file: The file of the record.
        record: The record.
    """
    replace_text(file, file.with_name(f"{file.name}.new"), json.dumps(asdict(record)))


def read_text(file: Path, longest: int) -> str:
    """Return the text of a file on a volume into which other pods write.

    Args:
        file: The file.
        longest: Size in bytes up to which it is read.

    Raises:
        OSError: It cannot be read, or is a symbolic link.
        ValueError: It is no regular file, larger, or not UTF-8.
    """
    with os.fdopen(os.open(file, os.O_RDONLY | _OWN_FILE), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > longest:
            raise ValueError(f"{file} is no file of up to {longest} bytes")
        return stream.read(longest).decode()


def replace_text(file: Path, temporary: Path, text: str) -> None:
    """Write a file atomically on a volume into which other pods write: not through a symbolic link.

    Args:
        file: The file.
        temporary: A path on the same file system, at which nothing is left also after an error.
        text: Its text.

    Raises:
        OSError: It cannot be written, or the temporary file is a symbolic link.
    """
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OWN_FILE, 0o644)
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def hash_prefix(file: Path, length: int) -> hashlib._Hash | None:
    """Return the SHA-256 over a file's first bytes; None if the file is shorter or missing.

    Args:
        file: The file.
        length: Number of bytes.
    """
    state = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size < length:
                return None
            while length and (block := stream.read(min(length, _BLOCK))):
                state.update(block)
                length -= len(block)
    except FileNotFoundError:
        return None
    return state if not length else None


def compute_digest(files: dict[str, str]) -> str:
    r"""Return `sha256:` over the sorted (path, sha256) pairs, a line each: `<sha256>  <path>`.

    A user can compute it: `sha256sum` prints these lines for the files in sorted order.

    Args:
        files: Digests by path.

    >>> compute_digest({"b": "22", "a": "11"}) == "sha256:" + hashlib.sha256(b"11  a\n22  b\n").hexdigest()
    True
    """
    lines = "".join(f"{files[path]}  {path}\n" for path in sorted(files))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
