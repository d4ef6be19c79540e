"""The one exception of this package: what went wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class ClusterError(Exception):
    """A step of the local cluster failed; the message is a sentence for the person at the terminal."""

    def __init__(self, message: str, *, log: Path | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.log = log
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, the tail of the log of what failed, and the hint."""
        parts = [self.message]
        if self.log is not None:
            parts.append(f"--- last lines of {self.log}\n{tail(self.log)}\n---")
        if self.hint is not None:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


def tail(path: Path, lines: int = 20) -> str:
    """Return the last ``lines`` lines of a log file, or a note that there is none."""
    if not path.exists():
        return "(no log was written)"
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 64 * 1024))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
