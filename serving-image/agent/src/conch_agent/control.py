"""The control key of the pod, which only the agent and Triton have."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

_BYTES: Final = 32
_MODE: Final = 0o440


def ensure_key(file: Path) -> str:
    """Return the pod's control key, and create it if the file does not exist.

    An existing key stays, because Triton may have started with it before a restart of the agent. The file is written
    atomically: under a temporary name, then renamed.

    Args:
        file: The file of the key.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return file.read_text().strip()
    key = secrets.token_hex(_BYTES)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    with os.fdopen(handle, "w") as stream:
        stream.write(key)
    temporary.rename(file)
    return key
