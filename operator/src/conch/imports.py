"""Lazy imports of kubernetes_asyncio's generated modules.

Three of its packages import all generated modules, 1,700 of them: 2.4 s of processor time in each process that starts,
and most of its memory, where Conch uses a dozen. Here a name of these packages is imported at its first use.
Python 3.15 has a statement for this (PEP 810, lazy imports).
"""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

_CLIENT: Final = "kubernetes_asyncio.client"
_PACKAGES: Final = frozenset({_CLIENT, f"{_CLIENT}.api", f"{_CLIENT}.models"})


def install() -> None:
    """Import these packages so from now on; those that are imported already stay as they are."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _OnDemand(fullname, spec.loader.path)
        return spec


class _OnDemand(SourceFileLoader):
    """Runs a package without its `from module import name`; such a name is imported at its first use (PEP 562)."""

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.parse(self.get_data(self.path), self.path)
        homes: dict[str, tuple[str, str]] = {}
        rest: list[ast.stmt] = []
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_CLIENT):
                homes |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            else:
                rest.append(node)

        def find(name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            home, original = homes[name]
            value = getattr(import_module(home), original)
            setattr(module, name, value)
            return value

        module.__dict__["__getattr__"] = find
        exec(compile(ast.Module(rest, tree.type_ignores), self.path, "exec"), module.__dict__)  # noqa: S102  as a loader does
