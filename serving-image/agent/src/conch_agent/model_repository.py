"""Detection of a Triton model repository where a model folder is expected, and the folder to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from conch_agent.reasons import Failure, Reason

_CONFIG: Final = "config.pbtxt"
_MODEL: Final = "model."  # prefix of Triton's default names of model files: model.onnx, model.plan, model.savedmodel
_MAX_NAMES: Final = 8  # in a message


def is_version(path: PurePosixPath) -> bool:
    """Return True for a file in a version folder.

    Args:
        path: The file's path below the model folder.

    >>> [is_version(PurePosixPath(path)) for path in ("1/model.onnx", "01/model.onnx", "1")]
    [True, False, False]
    """
    first = path.parts[0]
    return len(path.parts) > 1 and first.isdecimal() and first.isascii() and first == str(int(first)) and first != "0"


def find_models(paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """Return the folders with Triton's layout: a config.pbtxt, or a file of Triton's name in a version folder.

    Args:
        paths: The files of a source.

    >>> [str(model) for model in find_models(map(PurePosixPath, ("a/config.pbtxt", "b/1/model.plan", "c/2023/x.csv")))]
    ['a', 'b']
    """
    folders = {folder for path in paths if (folder := _find_model_folder(path))}
    return tuple(sorted(folder for folder in folders if not any(parent in folders for parent in folder.parents)))


def _find_model_folder(path: PurePosixPath) -> PurePosixPath | None:
    """Return the folder that a file proves to be a model folder; None for other files."""
    if path.name == _CONFIG and len(path.parts) > 1:
        return path.parent
    for depth in range(1, len(path.parts) - 1):
        folder, inner = PurePosixPath(*path.parts[:depth]), PurePosixPath(*path.parts[depth:])
        if is_version(inner) and inner.parts[1].startswith(_MODEL):
            return folder
    return None


def refuse_several_models(paths: Iterable[PurePosixPath], uri: str) -> Failure | None:
    """Return the failure of a storageUri with models in folders below it; None where there are none.

    Args:
        paths: The files of the source.
        uri: The storageUri.
    """
    files = tuple(paths)
    models = find_models(files)
    if not models:
        return None
    if len(models) == 1:
        others = sorted(str(path) for path in files if not path.is_relative_to(models[0]))
        rest = f" It holds {', '.join(others[:_MAX_NAMES])} beside that." if others else ""
        message = f"{uri} is not a Triton model folder, {models[0]} in it is one.{rest} {_suggest(models[0], uri)}"
        return Failure(Reason.NOT_A_MODEL, message)
    more = len(models) - _MAX_NAMES
    names = ", ".join(map(str, models[:_MAX_NAMES])) + (f" and {more} more" if more > 0 else "")
    message = (
        f"{uri} is a Triton model repository of {len(models)} models ({names}). To serve all of them, set"
        " modelFormat.name to repository and predictor.entry to the model that clients call"
        f"{_suggest_root(models, uri)}. To serve one: {_suggest(models[0], uri)}"
    )
    return Failure(Reason.SEVERAL_MODELS, message)


def describe_triton_layout(paths: Iterable[PurePosixPath], uri: str) -> str:
    """Return the remedy for files of another format that have Triton's layout; empty where they have not.

    Args:
        paths: The files of the source.
        uri: The storageUri.
    """
    models = find_models(paths)
    if not models:
        return ""
    return f" {models[0]} is laid out for Triton: set modelFormat.name to triton. {_suggest(models[0], uri)}"


def _suggest_root(models: tuple[PurePosixPath, ...], uri: str) -> str:
    """Return the change of storageUri to the folder that has the models; empty where it has them already."""
    parent = models[0].parent
    return f", and storageUri to {uri.rstrip('/')}/{parent}" if parent.parts else ""


def _suggest(model: PurePosixPath, uri: str) -> str:
    return f"Write the folder of one model into storageUri, such as {uri.rstrip('/')}/{model}."
