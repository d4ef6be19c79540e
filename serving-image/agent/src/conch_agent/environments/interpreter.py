"""The interpreter of Triton's Python backend: the first one in PATH, in both containers of a pod."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from conch_agent.reasons import Failure, Reason

_PROGRAM: Final = """
import json, site, sys, sysconfig
version = sysconfig.get_python_version()
print(json.dumps([sys._base_executable, version, sysconfig.get_platform(), site.getsitepackages()]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter.

    Attributes:
        program: Its path.
        base: Path of the interpreter of which it is a virtual environment; its own path, if it is none.
        version: Major and minor version, such as 3.12.
        platform: The platform of its wheels.
        packages: The folders of its packages.
    """

    program: str
    base: str
    version: str
    platform: str
    packages: tuple[str, ...]


def find_interpreter() -> Interpreter:
    """Return the interpreter.

    Raises:
        Failure: InvalidConfig: the image has none.
    """
    program = shutil.which("python3")
    if program is None:
        message = "EXECUTION_ENV_PATH names a requirements.txt, for which the image needs python3."
        raise Failure(Reason.INVALID_CONFIG, message)
    try:
        text = subprocess.run([program, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60).stdout
        base, version, platform, packages = json.loads(text)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        message = f"EXECUTION_ENV_PATH names a requirements.txt, and {program} of the image fails: {error}."
        raise Failure(Reason.INVALID_CONFIG, message) from None
    return Interpreter(program, base, version, platform, tuple(packages))
