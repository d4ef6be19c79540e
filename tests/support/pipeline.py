"""A model repository of an ensemble: a Python model before and after an ONNX model. It answers 2 (x + 1) + 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.serving.onnx_files import multiply

TENSORS = b"""
    input [{ name: "x" data_type: TYPE_FP32 dims: [-1, 2] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [-1, 2] }]
"""
# A step before and a step after the model, both in Python.
ADDER = b"""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        tensors = (pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)]) for x in tensors]
"""
PYTHON = b'backend: "python"' + TENSORS


def ensemble(*steps: str) -> bytes:
    """Return the config.pbtxt of an ensemble that passes x through its steps."""
    tensors = ["x", *(f"t{number}" for number in range(1, len(steps))), "y"]
    rows = (
        f'{{ model_name: "{step}" model_version: -1 input_map {{ key: "x" value: "{tensors[number]}" }}'
        f' output_map {{ key: "y" value: "{tensors[number + 1]}" }} }}'
        for number, step in enumerate(steps)
    )
    return b'platform: "ensemble"' + TENSORS + f"ensemble_scheduling {{ step [{', '.join(rows)}] }}".encode()


PIPELINE = {
    "README.md": b"# A pipeline",
    "pipeline/config.pbtxt": ensemble("pre", "double", "post"),  # an object store has no empty folder 1/
    "pre/config.pbtxt": PYTHON,
    "pre/1/model.py": ADDER,
    "double/1/model.onnx": multiply(2),
    "post/config.pbtxt": PYTHON,
    "post/1/model.py": ADDER,
}


def build_set(number: int) -> dict[str, bytes]:
    """Return a repository of which each part answers otherwise than the same part of another number; 1: PIPELINE."""
    adder = ADDER.replace(b"x + 1", f"x + {number}".encode())
    return {**PIPELINE, "pre/1/model.py": adder, "double/1/model.onnx": multiply(number + 1), "post/1/model.py": adder}


def compute_answer(number: int, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what a set answers; parts of two sets together answer otherwise than either.

    >>> [compute_answer(number, np.array([1.5])).tolist() for number in (1, 2)]
    [[6.0], [12.5]]
    """
    answer: np.ndarray[Any, Any] = (number + 1) * (x + number) + number
    return answer
