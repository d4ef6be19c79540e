"""Models below a folder that is none itself: what a Triton model repository looks like, and which part to name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from conch_agent.reasons import Failure, Reason

_CONFIG: Final = "config.pbtxt"
_MODEL: Final = "model."  # how Triton's default names of model files begin: model.onnx, model.plan, model.savedmodel
_MOST: Final = 8  # models that a message names


def is_version(path: PurePosixPath) -> bool:
    """Return True for a file in a version folder.

    >>> [is_version(PurePosixPath(path)) for path in ("1/model.onnx", "01/model.onnx", "1")]
    [True, False, False]
    """
    first = path.parts[0]
    return len(path.parts) > 1 and first.isdecimal() and first.isascii() and first == str(int(first)) and first != "0"


def find_models(paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """Return the folders that are laid out for Triton: a config.pbtxt, or a file of Triton's name in a version folder.

    >>> [str(model) for model in find_models(map(PurePosixPath, ("a/config.pbtxt", "b/1/model.plan", "c/2023/x.csv")))]
    ['a', 'b']
    """
    folders = {folder for path in paths if (folder := _model_folder(path))}
    return tuple(sorted(folder for folder in folders if not any(parent in folders for parent in folder.parents)))


def _model_folder(path: PurePosixPath) -> PurePosixPath | None:
    """Return the model folder that a file of its own shows; None where it shows none."""
    if path.name == _CONFIG and len(path.parts) > 1:
        return path.parent
    for depth in range(1, len(path.parts) - 1):
        folder, inner = PurePosixPath(*path.parts[:depth]), PurePosixPath(*path.parts[depth:])
        if is_version(inner) and inner.parts[1].startswith(_MODEL):
            return folder
    return None


def refuse_several_models(paths: Iterable[PurePosixPath], uri: str) -> Failure | None:
    """Return the failure of a storageUri that has its models in folders below; None where there is none."""
    found = tuple(paths)
    models = find_models(found)
    if not models:
        return None
    if len(models) == 1:
        beside = sorted(str(path) for path in found if not path.is_relative_to(models[0]))
        holds = f" It holds {', '.join(beside[:_MOST])} beside that." if beside else ""
        message = f"{uri} is not a Triton model folder, {models[0]} in it is one.{holds} {_suggest(models[0], uri)}"
        return Failure(Reason.NOT_A_MODEL, message)
    names = ", ".join(map(str, models[:_MOST])) + (f" and {len(models) - _MOST} more" if len(models) > _MOST else "")
    message = (
        f"{uri} is a Triton model repository of {len(models)} models ({names}), and an InferenceService serves one. "
        f"{_suggest(models[0], uri)} Serve each of the others as an InferenceService of its own. Models that call one "
        "another, as the steps of an ensemble do, have to be put into one model, such as a Python model."
    )
    return Failure(Reason.SEVERAL_MODELS, message)


def describe_triton_layout(paths: Iterable[PurePosixPath], uri: str) -> str:
    """Return what to write where a folder of another format is laid out for Triton; empty where it is not."""
    models = find_models(paths)
    if not models:
        return ""
    return f" {models[0]} is laid out for Triton: set modelFormat.name to triton. {_suggest(models[0], uri)}"


def _suggest(model: PurePosixPath, uri: str) -> str:
    return f"Write the folder of one model into storageUri, such as {uri.rstrip('/')}/{model}."
