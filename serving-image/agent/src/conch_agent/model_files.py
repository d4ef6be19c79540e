"""Which file of a version folder is the model, and which files a configuration names beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import safe_path
from conch_contract.manifest import ModelFormat

WARMUP: Final = PurePosixPath("warmup")  # Triton's names for the folders of its own data
INITIAL_STATE: Final = PurePosixPath("initial_state")
_MODEL_FOLDER: Final = "$$TRITON_MODEL_DIRECTORY/"
_DEFAULTS: Final[Mapping[ModelFormat, tuple[PurePosixPath, ...]]] = {
    "onnx": (PurePosixPath("model.onnx"),),
    "python": (PurePosixPath("model.py"),),
    "sklearn": (PurePosixPath("model.joblib"), PurePosixPath("model.pkl")),
}


@dataclass(frozen=True)
class ModelNames:
    """The files that a config.pbtxt names.

    `default` is default_model_filename and `others` those of cc_model_filenames, in a version folder; `beside` are
    files and folders beside the version folders.
    """

    default: PurePosixPath | None = None
    others: frozenset[PurePosixPath] = frozenset()
    beside: frozenset[PurePosixPath] = frozenset()


NOTHING_NAMED: Final = ModelNames()


def read_names(config: ModelConfig, uri: str) -> ModelNames:
    """Return the files that a configuration names; raises Failure (InvalidConfig) for a path that leaves its folder."""

    def path(field: str, text: str) -> PurePosixPath:
        try:
            return safe_path(text, uri)
        except Failure:
            message = (
                f"{uri}: {field} of config.pbtxt is {text[:200]!r}. Write a file's path in its folder, relative and "
                "without '.' and '..'."
            )
            raise Failure(Reason.INVALID_CONFIG, message) from None

    default = config.default_model_filename
    return ModelNames(
        default=path("default_model_filename", default) if default else None,
        others=frozenset(path("cc_model_filenames", text) for text in config.cc_model_filenames.values()),
        beside=frozenset(path(field, text) for field, text in _beside(config) if text),
    )


def _beside(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield each field that may name a file beside the version folders, and its text."""
    for output in config.output:
        yield "label_filename", output.label_filename
    for name, parameter in config.parameters.items():
        if parameter.string_value.startswith(_MODEL_FOLDER):
            yield f"parameters[{name!r}]", parameter.string_value.removeprefix(_MODEL_FOLDER)
    for warmup in config.model_warmup:
        for tensor in warmup.inputs.values():
            yield "input_data_file", tensor.input_data_file and f"{WARMUP}/{tensor.input_data_file}"
    for state in config.sequence_batching.state:
        for initial in state.initial_state:
            yield "data_file", initial.data_file and f"{INITIAL_STATE}/{initial.data_file}"


def select_model(
    kind: ModelFormat, own: tuple[PurePosixPath, ...], names: ModelNames
) -> dict[PurePosixPath, PurePosixPath] | str:
    """Return a version folder's files by the name that they are laid out under, or why they are no model.

    A single .onnx file gets the name that Triton looks for, unless the configuration names files.
    """
    files = {path: path for path in own}
    if names.default:
        lacks = f"lacks {str(names.default)!r}, which default_model_filename of config.pbtxt names"
        return files if names.default in files or names.default / "model.onnx" in files else lacks
    wanted = _DEFAULTS[kind]
    if any(path in files for path in wanted):
        return files
    if kind == "onnx":
        models = [path for path in own if path.suffix == ".onnx" and len(path.parts) == 1]
        if wanted[0] / "model.onnx" in files or (names.others and names.others <= files.keys()):
            return files
        if len(models) == 1 and not names.others:
            files[wanted[0]] = files.pop(models[0])
            return files
        if len(models) > 1:
            return "holds several .onnx files; name one in default_model_filename of config.pbtxt, or model.onnx"
    return f"lacks {' or '.join(map(str, wanted))}"
