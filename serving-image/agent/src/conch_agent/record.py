"""What is known of a file on disk, in a small JSON beside it: so that a killed agent goes on where it was."""

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
    """The first `offset` bytes of a file are on disk and have this SHA-256; `tag` is the source's for the whole."""

    tag: str
    size: int | None
    offset: int
    sha256: str
    done: bool = False


def read_record(file: Path) -> Record | None:
    """Return the record, or None if there is none that can be read."""
    try:
        return Record(**parse_json(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(file: Path, record: Record) -> None:
    """Write a record whole or not at all."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(asdict(record)))
    beside.replace(file)


def hash_prefix(file: Path, length: int) -> hashlib._Hash | None:
    """Return the SHA-256 over the file's first `length` bytes, or None if it is shorter or gone."""
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


def digest(files: dict[str, str]) -> str:
    r"""Return `sha256:` over the sorted (path, sha256) pairs, a line each: `<sha256>  <path>`.

    It is what `sha256sum` prints for the files in sorted order, so a user can compute it:

    >>> digest({"b": "22", "a": "11"}) == "sha256:" + hashlib.sha256(b"11  a\n22  b\n").hexdigest()
    True
    """
    lines = "".join(f"{files[path]}  {path}\n" for path in sorted(files))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
