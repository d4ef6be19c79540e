"""The packages that only this command needs: on a person's machine, never in the operator's image."""

import importlib
from collections.abc import Mapping
from typing import Final

from conch.cli.options import Refused

# What is imported, and what pip calls it.
CLIENT: Final = {
    "numpy": "numpy",
    "tritonclient.http.aio": "tritonclient[grpc,http]",
    "tritonclient.grpc.aio": "tritonclient[grpc,http]",
}
PICTURE: Final = {"matplotlib.figure": "matplotlib"}


def need(modules: Mapping[str, str]) -> None:
    """Import modules.

    Raises:
        Refused: some are not installed; it says how to install them.
    """
    missing = list(dict.fromkeys(package for module, package in modules.items() if not _there(module)))
    if missing:
        named = " ".join(f"'{package}'" for package in missing)
        raise Refused(
            f"kubectl conch load needs packages that are not installed beside it: {', '.join(missing)}; install them"
            f" into its Python: pip install {named} (all of them are the extra conch[load])"
        )


def _there(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
