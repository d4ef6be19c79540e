"""The step after magika: the name of the type with the highest score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Reads the names of the types beside its program."""

    def initialize(self, _: dict[str, str]) -> None:
        """Read the names."""
        settings = json.loads(Path(__file__).with_name("config.min.json").read_text())
        self._names = settings["target_labels_space"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        scores = (pb_utils.get_input_tensor_by_name(request, "scores").as_numpy().ravel() for request in requests)
        return [pb_utils.InferenceResponse(self._name(each)) for each in scores]

    def _name(self, scores: Any) -> list[Any]:
        best = int(np.argmax(scores))
        tensors = {
            "type": np.array([self._names[best]], dtype=object),
            "score": np.array([scores[best]], dtype=np.float32),
        }
        return [pb_utils.Tensor(name, value) for name, value in tensors.items()]
