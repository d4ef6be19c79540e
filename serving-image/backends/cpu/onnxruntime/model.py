"""ONNX models on Triton's python backend, under the name of NVIDIA's native one: one configuration serves both.

Triton loads this file by path, in an interpreter of its own that has numpy and onnxruntime. `native_config` beside it
reads the configuration as NVIDIA's backend does.
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
    """One instance of one version of a model: a session of its own."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Fill in what the model itself knows: names, types, shapes, and whether it can be batched."""
        known = config.as_dict()
        if not (known["input"] and known["output"]):
            with _refusals():
                native_config.refuse_unsupported(known)
                folder = native_config.version_folder(known, Path(pb_utils.get_model_dir()))
                native_config.complete(config, _session(known, folder, threads=1))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; raises with ONNX Runtime's words, or what the configuration asks in vain."""
        config = json.loads(args["model_config"])
        instances = _instances(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        with _refusals():
            native_config.refuse_unsupported(config)
            if native_config.shares_sessions(config) and instances > 1:
                pb_utils.Logger.log_warn(f"{instances} instances have a session each: here each is a process")
            self._session = _session(config, folder, threads=max(1, _cores() // instances))
            native_config.check_tensors(config, self._session)
            self._options = native_config.run_options(config)
        self._batched = config["max_batch_size"] > 0
        required = [tensor.name for tensor in self._session.get_inputs()]
        optional = {tensor["name"] for tensor in config["input"] if tensor.get("optional")}
        given = [tensor["name"] for tensor in config["input"]]
        self._inputs = {name: name in optional for name in dict.fromkeys([*required, *given])}
        shapes = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._scalars = {tensor.name for tensor in shapes if not tensor.shape}
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch by one run; if that fails, one by one, so that each gets its own error."""
        if len(requests) == 1:  # what is raised is a failure to Triton; an error that is answered is a success
            return [self._response(requests[0], self._run(self._feed(requests[0])))]
        if not self._batched:
            return [self._alone(request) for request in requests]
        try:
            return self._together(requests)
        except Exception:  # noqa: BLE001  the runs one by one say whose fault it was
            return [self._alone(request) for request in requests]

    def _together(self, requests: list[Any]) -> list[Any]:
        feeds = [self._feed(request) for request in requests]
        sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
        whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        results = self._run(whole)
        if any(result.shape[:1] != (sum(sizes),) for result in results):
            message = "an output's first dimension is not the batch"
            raise ValueError(message)
        cuts = np.cumsum(sizes)[:-1]
        parts = zip(*(np.split(result, cuts) for result in results), strict=True)
        return [self._response(request, part) for request, part in zip(requests, parts, strict=True)]

    def _run(self, feed: dict[str, np.ndarray]) -> list[Any]:
        return list(self._session.run(self._outputs, feed, self._options))

    def _alone(self, request: Any) -> Any:
        try:
            return self._response(request, self._run(self._feed(request)))
        except Exception as error:  # noqa: BLE001  an error is this request's answer
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
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

    def _response(self, request: Any, results: Any) -> Any:
        wanted = set(request.requested_output_names())
        tensors = [
            pb_utils.Tensor(name, np.atleast_1d(np.asarray(result)))
            for name, result in zip(self._outputs, results, strict=True)
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


@contextmanager
def _refusals() -> Iterator[None]:
    """Hand a refusal to Triton in the words of its message alone."""
    try:
        yield
    except native_config.ConfigError as error:
        raise pb_utils.TritonModelException(str(error)) from None


def _session(config: Any, folder: Path, threads: int) -> onnxruntime.InferenceSession:
    options = native_config.session_options(config, threads)
    file = native_config.model_file(config, folder)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _instances(config: Any) -> int:
    return sum(int(group.get("count") or 1) for group in config.get("instance_group") or ()) or 1


def _cores() -> int:
    """Return the processors that this container may use: its CPU quota, rounded up, or those it may run on."""
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
