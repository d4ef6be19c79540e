"""A Triton Python model that answers a request as often as its input requests, once a second: a stream."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One copy of the model; each request has a thread."""

    def execute(self, requests: list[Any]) -> None:
        """Begin the answers of each request."""
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "count").as_numpy()[0])
            threading.Thread(target=self._answer, args=(request.get_response_sender(), count), daemon=True).start()

    def _answer(self, sender: Any, count: int) -> None:
        for number in range(count):
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("tick", np.array([number], dtype=np.int32))]))
            time.sleep(1)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
