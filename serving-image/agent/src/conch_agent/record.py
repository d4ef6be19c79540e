"""Records of fetched files, JSON files with which a fetch resumes after a restart of the agent."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from conch_contract.parsing import parse_json

_BLOCK: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """State of a file on disk.

    Attributes:
        tag: The source's tag of the whole file.
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
        return Record(**parse_json(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(file: Path, record: Record) -> None:
    """Write a record atomically.

    Args:
        file: The file of the record.
        record: The record.
    """
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_text(json.dumps(asdict(record)))
    temporary.replace(file)


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
