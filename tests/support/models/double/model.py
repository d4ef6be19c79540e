"""A Triton Python model: every number times FACTOR, which its pod's environment says."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One copy of the model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Tell Triton the tensors, so that no config.pbtxt is needed."""
        config.set_max_batch_size(0)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        return config

    def initialize(self, _args: dict[str, str]) -> None:
        """Read the factor."""
        self._factor = np.float32(os.environ["FACTOR"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(request, "x").as_numpy() * self._factor)]
            )
            for request in requests
        ]
