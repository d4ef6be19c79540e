"""The step before magika: the first and the last bytes of a file, without white space at the ends, as its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

SIZE, BLOCK, PADDING = 1024, 4096, 256  # what magika's standard_v3_3 was trained with


class TritonPythonModel:
    """Makes one row of each file."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        files = (pb_utils.get_input_tensor_by_name(request, "file").as_numpy().ravel()[0] for request in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("bytes", self._build_row(file))]) for file in files]

    @staticmethod
    def _build_row(file: bytes) -> Any:
        begin, end = file[:BLOCK].lstrip()[:SIZE], file[-BLOCK:].rstrip()[-SIZE:]
        row = np.full(2 * SIZE, PADDING, dtype=np.int32)
        row[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
        row[2 * SIZE - len(end) :] = np.frombuffer(end, dtype=np.uint8)
        return row.reshape(1, -1)
