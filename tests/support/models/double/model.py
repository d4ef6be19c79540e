"""A Triton Python model: every number times FACTOR, which its configuration's parameters set, or else its environment.

For candidates that are bad: FAILS is the share of requests that end in an error, SLEEPS what each takes, in seconds,
DIES after how many seconds of its life a request takes Triton down, and LOADS how many seconds its load takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import Any

import numpy as np
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

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters and the environment."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        settings = {**os.environ, **{name: each["string_value"] for name, each in parameters.items()}}
        self._factor = np.float32(settings["FACTOR"])
        self._fails = float(settings.get("FAILS", "0"))
        self._sleeps = float(settings.get("SLEEPS", "0"))
        self._end = time.monotonic() + float(settings.get("DIES", "inf"))
        time.sleep(float(settings.get("LOADS", "0")))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        time.sleep(self._sleeps)
        if time.monotonic() > self._end:
            os.kill(os.getppid(), signal.SIGTERM)  # the first process of a container takes no SIGKILL from inside
        if random.random() < self._fails:  # noqa: S311  no secret
            raise pb_utils.TritonModelException("this model is broken")
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x * self._factor)])
