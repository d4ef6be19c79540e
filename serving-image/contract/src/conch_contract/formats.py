"""The table of model formats, one row each.

The rules of the CRD, the reference pages and the agent's layout of a model derive from these rows. A new format needs a
row here, and the folder of its backend in `serving-image/backends` unless Triton has that backend.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal


@dataclass(frozen=True)
class Format:
    """A format of modelFormat.name.

    Attributes:
        name: Value of modelFormat.name.
        backend: Triton's backend; empty: config.pbtxt names it.
        expected: The files of a folder of the format, for messages.
        files: The files of a folder of the format, for the reference page.
        tensors: Inputs and outputs of a model, for the reference page.
        summary: Description of the format for the API reference; empty: its name is enough.
        model_files: Names of the model in a version folder, the first one preferred; empty: config.pbtxt names it.
        suffix: Suffix by which a single file is the model, whatever its name; empty: model_files alone are models.
        takes_folder: True if the model may be a folder that holds the first of model_files.
        platform: Triton's older name of the backend, in config.pbtxt; empty: there is none.
        is_data: True if a model is data and no program. Its config.pbtxt may then have only fields that run no program.
        is_triton_folder: True if the files already have Triton's layout.
        is_repository: True if the files are a model repository: several models, each in a folder laid out for Triton.
        is_builtin: True if Triton has the backend in both images.
    """

    name: str
    backend: str
    expected: str
    files: str
    tensors: str
    summary: str = ""
    model_files: tuple[str, ...] = ()
    suffix: str = ""
    takes_folder: bool = False
    platform: str = ""
    is_data: bool = False
    is_triton_folder: bool = False
    is_repository: bool = False
    is_builtin: bool = False


PROGRAM_PARAMETERS: Final = ("EXECUTION_ENV_PATH", "TRITON_BATCH_STRATEGY_PATH")
"""Parameters of a model by which Triton runs a program. A model of a format that is data has none of them."""
PROGRAM_FILES: Final = ("batchstrategy.so",)
"""Names of files that Triton runs wherever a model has them. A model of a format that is data has none of them."""

_VERSIONS: Final = ", or version folders 1/, 2/, ... that hold one each"

_ROWS: Final = (
    Format(
        "onnx",
        backend="onnxruntime",
        expected=f"one .onnx file{_VERSIONS}",
        files="one `.onnx` file of any name (or among several `model.onnx`, or the `default_model_filename` of"
        " `config.pbtxt`), its external data beside it",
        tensors="the model's own",
        model_files=("model.onnx",),
        suffix=".onnx",
        takes_folder=True,
        platform="onnxruntime_onnx",
        is_data=True,
    ),
    Format(
        "python",
        backend="python",
        expected=f"model.py (and what it needs beside it){_VERSIONS}",
        files="`model.py` with a `TritonPythonModel`, and what it imports",
        tensors="from `auto_complete_config` or `config.pbtxt`",
        summary="a Triton Python model",
        model_files=("model.py",),
        is_builtin=True,
    ),
    Format(
        "repository",
        backend="",
        expected="a model repository of Triton: a folder for each model, with version folders and config.pbtxt",
        files="a folder for each model, each as for `triton`: ensembles and the models that they call",
        tensors="those of the model that `predictor.entry` names",
        summary="a model repository of Triton: a folder of the format triton for each model",
        is_repository=True,
        is_builtin=True,
    ),
    Format(
        "sklearn",
        backend="sklearn",
        expected=f"model.joblib or model.pkl{_VERSIONS}",
        files="`model.joblib` or `model.pkl`",
        tensors="`input` FP32 [n, features] to `label`, and `probability` where the model has `predict_proba`",
        summary="joblib",
        model_files=("model.joblib", "model.pkl"),
    ),
    Format(
        "triton",
        backend="",
        expected="a Triton model folder: version folders 1/, 2/, ... and, as a rule, config.pbtxt",
        files="a Triton model folder, or one folder that is one",
        tensors="its own",
        summary="a folder of any format that is laid out for Triton: version folders and config.pbtxt",
        is_triton_folder=True,
        is_builtin=True,
    ),
)

FORMATS: Final[Mapping[str, Format]] = {row.name: row for row in _ROWS}
"""The rows by modelFormat.name."""

OTHER_FORMATS: Final = ("TensorRT", "TensorFlow", "PyTorch", "OpenVINO")
"""Formats without a row, which users serve as `triton`."""

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]
