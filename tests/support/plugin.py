"""The plugin as a user runs it: a program, whose output is JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(sys.executable).with_name("kubectl-conch")


class PluginError(Exception):
    """A command that failed. The text is what it printed on standard error."""


def run_plugin(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Any:
    """Run a command of the plugin; return the value that it prints.

    Args:
        *arguments: The command's arguments, without -o.
        environment: Additional variables.

    Raises:
        PluginError: It fails.
    """
    result = subprocess.run(
        [PROGRAM, *arguments, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if result.returncode:
        raise PluginError(result.stderr or f"exit status {result.returncode}")
    return json.loads(result.stdout)
