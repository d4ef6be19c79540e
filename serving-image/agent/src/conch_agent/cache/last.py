"""The last content of each source that a pod has fetched completely, with which pods start while the source is away."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from conch_agent.record import read_text, replace_text
from conch_contract.parsing import parse_json

_LONGEST: Final = 4096  # bytes of a record


@dataclass(frozen=True)
class LastContent:
    """A content that was fetched from a source.

    Attributes:
        digest: Digest of its files.
        identity: Identity of the source's listing at that time.
        fetched: The time, in ISO 8601 with the zone.
    """

    digest: str
    identity: str
    fetched: str


def write_last(file: Path, scratch: Path, last: LastContent) -> None:
    """Record the last content of a source.

    Args:
        file: The file of the record.
        scratch: A folder of this pod on the same file system.
        last: The content.

    Raises:
        OSError: It cannot be written.
    """
    temporary = scratch / f"{file.name}.{secrets.token_hex(8)}"
    replace_text(file, temporary, json.dumps(asdict(last)))


def read_last(file: Path) -> LastContent | None:
    """Return the last content of a source; None: there is none, or none that can be read.

    Args:
        file: The file of the record, into which other pods write.
    """
    try:
        last = LastContent(**parse_json(read_text(file, _LONGEST)))
        is_text = all(isinstance(value, str) for value in asdict(last).values())
        return last if is_text and datetime.fromisoformat(last.fetched).tzinfo else None
    except (OSError, ValueError, TypeError):
        return None
