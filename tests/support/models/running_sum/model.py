"""A Triton Python model that remembers: the sum of the numbers of a sequence so far, and which pod has it."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One copy of the model; Triton sends all requests of a sequence to the same copy in its pod."""

    def initialize(self, _: dict[str, str]) -> None:
        """Begin without sequences."""
        self._sums: dict[int, float] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        sequence, flags = request.correlation_id(), request.flags()
        starts = flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
        number = float(pb_utils.get_input_tensor_by_name(request, "x").as_numpy().ravel()[0])
        self._sums[sequence] = number + (0.0 if starts else self._sums[sequence])
        tensors = {
            "sum": np.array([[self._sums[sequence]]], dtype=np.float32),
            "pod": np.array([[socket.gethostname()]], dtype=object),
        }
        if flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            del self._sums[sequence]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
