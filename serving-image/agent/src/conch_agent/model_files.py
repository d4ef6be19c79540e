"""The model's file in a version folder, and the other files that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import parse_path
from conch_contract.formats import Format
from conch_contract.sentences import join_words

WARMUP: Final = PurePosixPath("warmup")  # Triton's names of the folders of its own data
INITIAL_STATE: Final = PurePosixPath("initial_state")
MODEL_FOLDER: Final = "$$TRITON_MODEL_DIRECTORY/"  # in parameters, where Triton replaces it by the model folder


@dataclass(frozen=True)
class ModelNames:
    """The files that a config.pbtxt names.

    Attributes:
        default: default_model_filename, in a version folder.
        others: The files of cc_model_filenames, in a version folder.
        beside: Files and folders beside the version folders.
    """

    default: PurePosixPath | None = None
    others: frozenset[PurePosixPath] = frozenset()
    beside: frozenset[PurePosixPath] = frozenset()


NO_NAMES: Final = ModelNames()


def read_names(config: ModelConfig, uri: str) -> ModelNames:
    """Return the files that a configuration names.

    Args:
        config: The configuration.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: InvalidConfig for a path that leaves its folder.
    """

    def parse(field: str, text: str) -> PurePosixPath:
        try:
            return parse_path(text, uri)
        except Failure:
            message = (
                f"{uri}: {field} of config.pbtxt is {text[:200]!r}. Write a file's path in its folder, relative and "
                "without '.' and '..'."
            )
            raise Failure(Reason.INVALID_CONFIG, message) from None

    default = config.default_model_filename
    return ModelNames(
        default=parse("default_model_filename", default) if default else None,
        others=frozenset(parse("cc_model_filenames", text) for text in config.cc_model_filenames.values()),
        beside=frozenset(parse(field, text) for field, text in _find_files_beside(config) if text),
    )


def _find_files_beside(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield each field that may name a file beside the version folders, and its text."""
    for output in config.output:
        yield "label_filename", output.label_filename
    for name, parameter in config.parameters.items():
        if parameter.string_value.startswith(MODEL_FOLDER):
            yield f"parameters[{name!r}]", parameter.string_value.removeprefix(MODEL_FOLDER)
    for warmup in config.model_warmup:
        for tensor in warmup.inputs.values():
            yield "input_data_file", tensor.input_data_file and f"{WARMUP}/{tensor.input_data_file}"
    for state in config.sequence_batching.state:
        for initial in state.initial_state:
            yield "data_file", initial.data_file and f"{INITIAL_STATE}/{initial.data_file}"


def select_model(
    row: Format, paths: tuple[PurePosixPath, ...], names: ModelNames
) -> dict[PurePosixPath, PurePosixPath] | str:
    """Return a version folder's files by their name in Triton's folder, or a message if they are no model.

    A single file with the format's suffix gets the name that Triton expects, unless the configuration names files.

    Args:
        row: The format.
        paths: The files of the version folder.
        names: The files that config.pbtxt names.
    """
    files = {path: path for path in paths}
    if names.default:
        problem = f"lacks {str(names.default)!r}, which default_model_filename of config.pbtxt names"
        return files if _is_model(row, names.default, paths) else problem
    if any(_is_model(row, PurePosixPath(name), paths) for name in row.model_files):
        return files
    if row.suffix:
        if names.others and names.others <= files.keys():
            return files
        models = [path for path in paths if path.suffix == row.suffix and len(path.parts) == 1]
        if len(models) == 1 and not names.others:
            files[PurePosixPath(row.model_files[0])] = files.pop(models[0])
            return files
        if len(models) > 1:
            return (
                f"holds several {row.suffix} files; name one in default_model_filename of config.pbtxt, or "
                f"{row.model_files[0]}"
            )
    return f"lacks {join_words(row.model_files, 'or')}"


def _is_model(row: Format, path: PurePosixPath, files: tuple[PurePosixPath, ...]) -> bool:
    """Return True if a path is a file, or a folder that the format's backend accepts as the model."""
    return path in files or (row.takes_folder and path / row.model_files[0] in files)
