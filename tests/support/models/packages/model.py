"""A Triton Python model that needs a package: every number times the factor of `scaling`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scaling  # type: ignore[import-not-found]  # of its requirements.txt
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One copy of the model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Declare the tensors to Triton, so that no config.pbtxt is needed."""
        config.set_max_batch_size(0)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        return config

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x * np.float32(scaling.FACTOR))]) for x in inputs]
