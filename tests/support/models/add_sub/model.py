"""A Triton Python model with a config.pbtxt beside it: sum, difference, and which version answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One copy of one version of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn which version this is."""
        self._version = np.array([args["model_version"]], dtype=np.int32)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        left, right = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("left", "right"))
        tensors = {"sum": left + right, "difference": left - right, "version": self._version}
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
