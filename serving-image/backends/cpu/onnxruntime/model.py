"""The backend of ONNX models in the CPU image. It has the name and the configuration of NVIDIA's native backend.

Triton's python backend loads this file by path, in its own interpreter with numpy and onnxruntime. `native_config`
interprets the configuration like NVIDIA's backend.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import native_config
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """An instance of a version of a model, with its own session."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Complete the configuration with the model's names, types and shapes, and its batch size.

        Args:
            config: Triton's pb_utils.ModelConfig.
        """
        known = config.as_dict()
        if not (known["input"] and known["output"]):
            with _translate_refusals():
                native_config.refuse_unsupported(known)
                folder = native_config.find_version_folder(known, Path(pb_utils.get_model_dir()))
                native_config.complete(config, _open_session(known, folder, threads=1))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session. Triton forwards the message of ONNX Runtime's exceptions and of a refused configuration.

        Args:
            args: Triton's arguments.
        """
        config = json.loads(args["model_config"])
        instances = _count_instances(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        with _translate_refusals():
            native_config.refuse_unsupported(config)
            if native_config.shares_sessions(config) and instances > 1:
                pb_utils.Logger.log_warn(f"{instances} instances have a session each: here each is a process")
            self._session = _open_session(config, folder, threads=max(1, _count_cores() // instances))
            native_config.check_tensors(config, self._session)
            self._options = native_config.build_run_options(config)
        self._is_batched = config["max_batch_size"] > 0
        required = [tensor.name for tensor in self._session.get_inputs()]
        optional = {tensor["name"] for tensor in config["input"] if tensor.get("optional")}
        given = [tensor["name"] for tensor in config["input"]]
        self._inputs = {name: name in optional for name in dict.fromkeys([*required, *given])}
        shapes = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._scalars = {tensor.name for tensor in shapes if not tensor.shape}
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch with one run; if that fails, with a run, and so an error, for each request.

        Args:
            requests: The requests.
        """
        if len(requests) == 1:  # Triton counts an exception as a failure, and an error response as a success
            return [self._build_response(requests[0], self._run(self._build_feed(requests[0])))]
        if not self._is_batched:
            return [self._run_one(request) for request in requests]
        try:
            return self._run_batch(requests)
        except Exception:  # noqa: BLE001  the single runs show which request is the cause
            return [self._run_one(request) for request in requests]

    def _run_batch(self, requests: list[Any]) -> list[Any]:
        feeds = [self._build_feed(request) for request in requests]
        sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
        whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        results = self._run(whole)
        if any(result.shape[:1] != (sum(sizes),) for result in results):
            message = "an output's first dimension is not the batch"
            raise ValueError(message)
        cuts = np.cumsum(sizes)[:-1]
        parts = zip(*(np.split(result, cuts) for result in results), strict=True)
        return [self._build_response(request, part) for request, part in zip(requests, parts, strict=True)]

    def _run(self, feed: dict[str, np.ndarray]) -> list[Any]:
        return list(self._session.run(self._outputs, feed, self._options))

    def _run_one(self, request: Any) -> Any:
        try:
            return self._build_response(request, self._run(self._build_feed(request)))
        except Exception as error:  # noqa: BLE001  the error is the answer to this request
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _build_feed(self, request: Any) -> dict[str, np.ndarray]:
        feed = {}
        for name, optional in self._inputs.items():
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                if optional:
                    continue
                message = f"the request lacks the input {name!r}; the model has {list(self._inputs)}"
                raise ValueError(message)
            value = tensor.as_numpy()
            value = value.reshape(()) if name in self._scalars else value
            feed[name] = np.char.decode(value.astype(np.bytes_), "utf-8") if value.dtype == np.object_ else value
        return feed

    def _build_response(self, request: Any, results: Any) -> Any:
        names = set(request.requested_output_names())
        tensors = [
            pb_utils.Tensor(name, np.atleast_1d(np.asarray(result)))
            for name, result in zip(self._outputs, results, strict=True)
            if name in names
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


@contextmanager
def _translate_refusals() -> Iterator[None]:
    """Raise a refused configuration as Triton's exception, with its message only."""
    try:
        yield
    except native_config.ConfigError as error:
        raise pb_utils.TritonModelException(str(error)) from None


def _open_session(config: Any, folder: Path, threads: int) -> onnxruntime.InferenceSession:
    options = native_config.build_session_options(config, threads)
    file = native_config.find_model_file(config, folder)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _count_instances(config: Any) -> int:
    return sum(int(group.get("count") or 1) for group in config.get("instance_group") or ()) or 1


def _count_cores() -> int:
    """Return the number of processors of this container: its CPU quota, rounded up, or its CPU affinity."""
    allowed = len(os.sched_getaffinity(0))
    quotas = []
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        quotas.append((limit, period))
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        quotas.append(((folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()))
    except OSError:
        pass
    for limit, period in quotas:
        if limit.strip().isdecimal():
            allowed = min(allowed, -(-int(limit) // int(period)))
    return max(1, allowed)
