"""The folder with the figures of all parts of `make bench`, one JSON file each: what `tests.bench.report` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path("build/bench")


def write(file: Path, value: object) -> None:
    """Write a value as JSON, in one step: an ended run leaves what it has measured, and never half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(file)


def read(folder: Path) -> dict[str, Any]:
    """Return the values of a folder's files by name without `.json`; empty: nothing was measured.

    Raises:
        ValueError: a file is not JSON.
    """
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("[!.]*.json"))}
