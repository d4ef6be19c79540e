"""Fuzzes one target: `python -m tests.fuzz.one TARGET [libFuzzer's options and corpora]`."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from tests.fuzz.mutate import mutate


def main() -> None:
    """Run libFuzzer; it ends with the process."""
    name, *options = sys.argv[1:]
    atheris: Any = import_module("atheris")  # `make fuzz` installs it, and only then it is there
    with atheris.instrument_imports(include=["conch", "conch_contract", "conch_agent"]):
        target = import_module("tests.fuzz.targets").targets()[name]

    def read(data: bytes) -> None:
        with suppress(*target.errors):
            target.read(data)

    def change(data: bytes, limit: int, seed: int) -> bytes:
        changed = mutate(data, seed) if target.is_json and seed % 8 else None
        return changed if changed is not None and len(changed) <= limit else bytes(atheris.Mutate(data, limit))

    atheris.Setup([sys.argv[0], *options], read, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
