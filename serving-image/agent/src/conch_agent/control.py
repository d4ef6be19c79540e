"""The key of Triton's control endpoints: made once per pod, known to agent and Triton only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

_BYTES: Final = 32
_MODE: Final = 0o440


def ensure_key(file: Path) -> str:
    """Return the pod's control key; write it first if there is none.

    A key that is there stays: Triton may have started with it before this agent was restarted.
    The file appears whole or not at all (written beside, then renamed).
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return file.read_text().strip()
    key = secrets.token_hex(_BYTES)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    with os.fdopen(handle, "w") as stream:
        stream.write(key)
    beside.rename(file)
    return key
