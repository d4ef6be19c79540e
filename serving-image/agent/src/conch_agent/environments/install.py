"""The installation of packages by pip, for the interpreter of Triton's Python backend.

pip runs no code of a package: it installs wheels alone, and none that a requirement does not name.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from conch_agent.environments.index import Index
from conch_agent.environments.interpreter import Interpreter
from conch_agent.environments.requirements import WHEELS, Requirements
from conch_agent.reasons import Failure, Reason
from conch_agent.signed_urls import hide_signatures
from conch_agent.threads import run_in_thread

_OPTIONS: Final = (
    "--no-deps",
    "--only-binary=:all:",
    "--no-cache-dir",
    "--no-compile",
    "--no-input",
    "--no-color",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=3",
    "--timeout=30",
)
_ERROR: Final = "ERROR: "
_WARNING: Final = "WARNING: "
_LONGEST_SECONDS: Final = 3600  # for an index that sends a byte now and then
_LONGEST: Final = 1000  # letters of pip's words in a message


async def install(requirements: Requirements, interpreter: Interpreter, folder: Path, place: str, index: Index) -> None:
    """Install packages into a folder.

    Args:
        requirements: The packages.
        interpreter: The interpreter that imports them.
        folder: The folder, which is empty.
        place: As in `read_requirements`.
        index: The index that has the wheels.

    Raises:
        Failure: EnvironmentFailed, with pip's words; Unreachable: a proxy of the container's environment is invalid.
        OSError: The disk is full, or the folder cannot be written.
    """
    listed = folder.with_suffix(".txt")
    await run_in_thread(listed.write_text, "\n".join(requirements.lines) + "\n")
    is_local = bool(requirements.wheels)
    variables = {} if is_local else await run_in_thread(index.write_variables, folder.parent)
    command = [sys.executable, "-m", "pip", "--python", interpreter.program, "install", *_OPTIONS]
    if is_local:
        command += ["--no-index", *(f"--find-links={wheel}" for wheel in requirements.wheels)]
    if requirements.has_hashes:
        command += ["--require-hashes"]
    status, output = await _run([*command, f"--target={folder}", f"--requirement={listed}"], folder.parent, variables)
    await run_in_thread(listed.unlink)
    if status == 0:
        return
    words = hide_signatures(_select(output))[:_LONGEST]
    if "[Errno 28]" in output:
        raise OSError(28, "No space left on device")
    where = f"the folder {WHEELS}/" if requirements.wheels else index.place
    message = (
        f"{place}: pip cannot install the packages from {where} (exit status {status}): {words} Expected is a wheel of"
        f" each version for this image's Python; sources are not built. The agent tries again."
    )
    raise Failure(Reason.ENVIRONMENT_FAILED, message)


def _select(output: str) -> str:
    r"""Return pip's errors after its last warning, which has the cause where an index does not answer.

    >>> _select("Looking\nWARNING: Connection refused\nERROR: No version\n\nERROR: No match")
    'Connection refused No version No match'
    >>> _select("Killed\n")
    'Killed'
    """
    lines = output.splitlines()
    warnings = [line.removeprefix(_WARNING) for line in lines if line.startswith(_WARNING)]
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return " ".join([*warnings[-1:], *errors]) if errors else output[-_LONGEST:].strip()


async def _run(command: list[str], folder: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Run pip; return its exit status and its output. A cancellation ends it, and what it has started."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "TMPDIR": str(folder)}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment | variables,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return -signal.SIGKILL, f"not done after {_LONGEST_SECONDS} seconds"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode or 0, output.decode(errors="replace")
