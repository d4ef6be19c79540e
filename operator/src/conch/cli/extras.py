"""The packages that only some commands need: on a user's machine, never in the operator's image."""

import importlib
from collections.abc import Mapping
from typing import Final

from conch.cli.options import CommandError

# Modules, and their packages for pip.
CLIENT: Final = {
    "numpy": "numpy",
    "tritonclient.http.aio": "tritonclient[grpc,http]",
    "tritonclient.grpc.aio": "tritonclient[grpc,http]",
}
PLOT: Final = {"matplotlib.figure": "matplotlib"}


def import_extras(command: str, modules: Mapping[str, str]) -> None:
    """Import modules of extra packages.

    Args:
        command: The command, whose name the extra has.
        modules: Modules, and their packages for pip.

    Raises:
        CommandError: some are not installed. The message has the command that installs them.
    """
    missing = list(dict.fromkeys(package for module, package in modules.items() if not _is_installed(module)))
    if missing:
        packages = " ".join(f"'{package}'" for package in missing)
        raise CommandError(
            f"kubectl conch {command} needs packages that are not installed: {', '.join(missing)}; install them"
            f" into its Python: pip install {packages} (all of them are the extra kubectl-conch[{command}])"
        )


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
