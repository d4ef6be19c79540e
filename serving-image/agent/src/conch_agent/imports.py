"""Triton's messages without the tensors of its client library.

The package `tritonclient.grpc` imports numpy for the tensors of requests: 19 MiB, and a fifth of the time of all
imports, for which a pod waits before it loads a model. The messages in its modules need no numpy, and the agent loads
models by messages alone. So the package's own code runs at the first use of one of its own names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "tritonclient.grpc"


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _PACKAGE else None
        if spec and spec.loader:
            spec.loader = _OnDemand(spec.loader)
        return spec


class _OnDemand(Loader):
    """Runs a package at the first use of a name that is none of its modules (PEP 562)."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def exec_module(self, module: ModuleType) -> None:
        def find(name: str) -> Any:
            if PathFinder.find_spec(f"{_PACKAGE}.{name}", module.__path__):
                raise AttributeError(name)  # the import that reads it imports the module
            del module.__dict__["__getattr__"]
            self._loader.exec_module(module)
            return getattr(module, name)

        module.__dict__["__getattr__"] = find


def install() -> None:
    """Import the package so from now on, if it is not imported already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
