"""Running other programs: quiet when they succeed, and the whole story when they do not."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    hint: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed; raises ``ClusterError`` when it fails."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        message = f"{words[0]} is not installed"
        raise ClusterError(message, hint=hint) from error
    if check and done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        message = f"{shlex.join(words)[:400]}\nended with status {done.returncode}:\n{output}"
        raise ClusterError(message, hint=hint)
    return done


def log_run(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    hint: str,
    on_line: Callable[[], None] | None = None,
) -> None:
    """Run a long program with its output in ``log``, calling ``on_line`` after each line of it.

    Raises:
        ClusterError: it ended with another status than 0; has the log's last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            output.flush()
            if on_line is not None:
                on_line()
        code = process.wait()
    if code != 0:
        message = f"{shlex.join(words)[:400]} ended with status {code}"
        raise ClusterError(message, log=log, hint=hint)
