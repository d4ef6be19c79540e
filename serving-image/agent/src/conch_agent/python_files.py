"""The Python files of a model, which may call other models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent import layout
from conch_contract.formats import FORMATS

_PYTHON: Final = FORMATS["python"]


def find_programs(plan: layout.Plan, config: ModelConfig, files: Path) -> list[Path]:
    """Return the model.py of each version; none for backends other than Python.

    Args:
        plan: The places of the model's files.
        config: Its configuration.
        files: The folder of the files.
    """
    name = config.default_model_filename or _PYTHON.model_files[0]
    targets = {PurePosixPath(str(version)) / name for version in plan.versions}
    return [file for target, file in _list_python_files(plan, config, files) if target in targets]


def find_python_files(plan: layout.Plan, config: ModelConfig, files: Path) -> list[Path]:
    """Return all Python files of a model; none for backends other than Python.

    Args:
        plan: The places of the model's files.
        config: Its configuration.
        files: The folder of the files.
    """
    return [file for _, file in _list_python_files(plan, config, files)]


def _list_python_files(plan: layout.Plan, config: ModelConfig, files: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    if config.backend in {_PYTHON.backend, ""}:
        yield from ((target, files / path) for target, path in plan.files.items() if target.suffix == ".py")
