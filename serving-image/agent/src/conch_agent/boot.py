"""The node's boot, after which files that were not written to disk may be damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return the id of the node's boot; empty: the kernel has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
