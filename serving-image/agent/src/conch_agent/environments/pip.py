"""pip as a process, within bounds of time and output, and its errors as users read them."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.environments.interpreter import Interpreter
from conch_agent.signed_urls import hide_signatures
from conch_agent.threads import run_in_thread

TEMPORARY: Final = "tmp"  # in pip's folder; it has what pip downloads
_OPTIONS: Final = (
    "--no-deps",
    "--only-binary=:all:",
    "--no-cache-dir",
    "--no-input",
    "--no-color",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=3",
    "--timeout=30",
)
_ERROR: Final = "ERROR: "
_WARNING: Final = "WARNING: "
_DISK_FULL: Final = ("[Errno 28]", "[Errno 122]")  # ENOSPC, EDQUOT
_LINE: Final = re.compile(r" ?\(from -r \S+ \(line \d+\)\)")  # of a file that the agent writes
_LONGEST_SECONDS: Final = 3600  # for an index that sends a byte now and then
_LONGEST_OUTPUT: Final = 64 * 1024  # bytes at its end, where its errors are
_LONGEST_ERROR: Final = 400  # letters of one error in a message
_LONGEST_PROBLEM: Final = 1000
_CHECK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class PipResult:
    """The end of pip.

    Attributes:
        status: Its exit status; negative: the signal that has ended it.
        output: The end of its output.
        folder: Its folder, which no message names.
    """

    status: int
    output: str
    folder: Path

    @property
    def problem(self) -> str:
        r"""Its errors after its last warning, which has the cause where an index does not answer.

        >>> PipResult(1, "Looking\nWARNING: Connection refused\nERROR: No version\n\nERROR: No match", Path()).problem
        'Connection refused No version No match'
        >>> PipResult(1, "ERROR: Wheel 'a' located at /pod/wheels/a.whl is invalid.", Path("/pod")).problem
        "Wheel 'a' located at wheels/a.whl is invalid."
        >>> PipResult(-9, "Killed\n", Path()).problem
        'Killed'
        """
        output = _LINE.sub("", self.output.replace(f"{self.folder.resolve()}/", "").replace(f"{self.folder}/", ""))
        lines = output.splitlines()
        warnings = [line.removeprefix(_WARNING) for line in lines if line.startswith(_WARNING)]
        errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
        words = [*warnings[-1:], *errors] if errors else lines[-1:]
        return " ".join(_shorten(hide_signatures(text)) for text in words)[-_LONGEST_PROBLEM:]


async def run_pip(
    interpreter: Interpreter,
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    check: Callable[[], None] | None = None,
) -> PipResult:
    """Run pip; a cancellation ends it, and what it has started.

    Args:
        interpreter: The interpreter for which it works.
        arguments: Its command, and the arguments of that.
        folder: Its working directory, which has the folder TEMPORARY.
        variables: Variables of its environment.
        check: Called twice a second; what it raises ends pip.

    Raises:
        OSError: The disk is full.
    """
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "TMPDIR": str(folder / TEMPORARY)}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "--python", interpreter.program, *arguments, *_OPTIONS),
        env={**environment, **variables},
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    end = asyncio.create_task(_wait(process))
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            while not (await asyncio.wait({end}, timeout=_CHECK_SECONDS))[0]:
                if check:
                    await run_in_thread(check)
        result = PipResult(process.returncode or 0, end.result(), folder)
    except TimeoutError:
        return PipResult(-signal.SIGKILL, f"{_ERROR}not done after {_LONGEST_SECONDS} seconds", folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await end
    if result.status and any(code in result.output for code in _DISK_FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return result


async def _wait(process: asyncio.subprocess.Process) -> str:
    """Wait for the end of a process; return the end of its output."""
    tail = b""
    while process.stdout and (piece := await process.stdout.read(_LONGEST_OUTPUT)):
        tail = (tail + piece)[-_LONGEST_OUTPUT:]
    await process.wait()
    return tail.decode(errors="replace")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."
