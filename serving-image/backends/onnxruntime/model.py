"""ONNX models on Triton's python backend, under the name of NVIDIA's native one: one configuration serves both.

Triton loads this file by path, in an interpreter of its own that has numpy and onnxruntime. What NVIDIA's backend
completes in a configuration, this one completes alike: inputs and outputs from the session, and a maximum batch
size of 4 where every tensor's first dimension is free
(https://github.com/triton-inference-server/onnxruntime_backend, "default-max-batch-size").
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_MODEL = "model.onnx"
_DEFAULT_BATCH = 4
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class TritonPythonModel:
    """One instance of one version of a model: a session of its own."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Fill in what the model itself knows: names, types, shapes, and whether it can be batched."""
        session = _session(Path(pb_utils.get_model_dir()), threads=1)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        known = config.as_dict()
        batch = known["max_batch_size"]
        batchable = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in [*inputs, *outputs])
        if not batch and batchable and not known["input"] and not known["output"]:
            batch = _DEFAULT_BATCH
            config.set_max_batch_size(batch)
        if batch > 1 and "dynamic_batching" not in known and "sequence_batching" not in known:
            config.set_dynamic_batching()
        for tensor in inputs:
            if tensor.name not in {each["name"] for each in known["input"]}:
                config.add_input(_tensor(tensor, batched=batch > 0))
        for tensor in outputs:
            if tensor.name not in {each["name"] for each in known["output"]}:
                config.add_output(_tensor(tensor, batched=batch > 0))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; raises with ONNX Runtime's words, which Triton hands on."""
        config = json.loads(args["model_config"])
        instances = sum(group["count"] for group in config["instance_group"]) or 1
        folder = Path(args["model_repository"]) / args["model_version"]
        self._session = _session(folder, threads=max(1, _cores() // instances))
        self._batched = config["max_batch_size"] > 0
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        offered = [tensor.name for tensor in self._session.get_outputs()]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        missing = [name for name in self._outputs if name not in offered]
        if missing:
            message = f"the configuration names the outputs {missing}; {_MODEL} has {offered}"
            raise pb_utils.TritonModelException(message)
        self._types = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch by one run; if that fails, one by one, so that each gets its own error."""
        if (
            len(requests) == 1
        ):  # what is raised is counted as a failure; an error that is answered is a success to Triton
            return [self._response(requests[0], self._session.run(self._outputs, self._feed(requests[0])))]
        if not self._batched:
            return [self._alone(request) for request in requests]
        try:
            return self._together(requests)
        except Exception:  # noqa: BLE001  the runs one by one say whose fault it was
            return [self._alone(request) for request in requests]

    def _together(self, requests: list[Any]) -> list[Any]:
        feeds = [self._feed(request) for request in requests]
        sizes = [feed[self._inputs[0]].shape[0] for feed in feeds]
        whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        results = self._session.run(self._outputs, whole)
        if any(result.shape[:1] != (sum(sizes),) for result in results):
            message = "an output's first dimension is not the batch"
            raise ValueError(message)
        cuts = np.cumsum(sizes)[:-1]
        parts = zip(*(np.split(result, cuts) for result in results), strict=True)
        return [self._response(request, part) for request, part in zip(requests, parts, strict=True)]

    def _alone(self, request: Any) -> Any:
        try:
            return self._response(request, self._session.run(self._outputs, self._feed(request)))
        except Exception as error:  # noqa: BLE001  an error is this request's answer
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
        feed = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                message = f"the request lacks the input {name!r}; the model has {self._inputs}"
                raise ValueError(message)
            value = tensor.as_numpy()
            feed[name] = np.char.decode(value.astype(np.bytes_), "utf-8") if value.dtype == np.object_ else value
        return feed

    def _response(self, request: Any, results: Any) -> Any:
        wanted = set(request.requested_output_names())
        tensors = [
            pb_utils.Tensor(name, np.asarray(result).astype(self._types[name], copy=False))
            for name, result in zip(self._outputs, results, strict=True)
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _session(folder: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / _MODEL), options, providers=["CPUExecutionProvider"])


def _tensor(tensor: Any, *, batched: bool) -> dict[str, Any]:
    kind = _TYPES.get(tensor.type)
    if kind is None:
        message = f"{tensor.name!r} is of type {tensor.type}, which Triton has no tensor for"
        raise pb_utils.TritonModelException(message)
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "data_type": kind, "dims": shape[1:] if batched else shape}


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
