"""Requests as users of Triton send them: NVIDIA's client library, over HTTP and gRPC."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

Tensor = npt.NDArray[Any]
Tensors = dict[str, Tensor]

_SECONDS = 30.0


def infer_http(
    address: str, model: str, inputs: Mapping[str, Tensor], *, version: str = "", seconds: float = _SECONDS
) -> Tensors:
    """Send one request over HTTP to host:port; return all outputs."""
    with over_http.InferenceServerClient(address, connection_timeout=_SECONDS, network_timeout=seconds) as client:
        answer = client.infer(model, _inputs(over_http, inputs), model_version=version)
        return {output["name"]: answer.as_numpy(output["name"]) for output in answer.get_response()["outputs"]}


def infer_grpc(
    address: str, model: str, inputs: Mapping[str, Tensor], *, version: str = "", seconds: float = _SECONDS
) -> Tensors:
    """Send one request over gRPC to host:port; return all outputs."""
    with over_grpc.InferenceServerClient(address) as client:
        answer = client.infer(model, _inputs(over_grpc, inputs), model_version=version, client_timeout=seconds)
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def infer_stream(
    address: str, model: str, inputs: Mapping[str, Tensor], *, host: str = "", seconds: float = _SECONDS
) -> list[Tensors]:
    """Send one request over a gRPC stream to host:port; return the answers of a decoupled model, in their order.

    `host` is the name by which a gateway knows the service.
    """
    authority = [("grpc.default_authority", host)] if host else None
    results: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    answers: list[Tensors] = []
    with over_grpc.InferenceServerClient(address, channel_args=authority) as client:
        client.start_stream(lambda result, error: results.put((result, error)), stream_timeout=seconds)
        client.async_stream_infer(model, _inputs(over_grpc, inputs), enable_empty_final_response=True)
        while True:
            answer, error = results.get(timeout=seconds)
            if error is not None:
                raise error
            response = answer.get_response()
            if response.outputs:
                answers.append({output.name: answer.as_numpy(output.name) for output in response.outputs})
            if response.parameters["triton_final_response"].bool_param:
                return answers


def _inputs(library: Any, tensors: Mapping[str, Tensor]) -> list[Any]:
    found = []
    for name, tensor in tensors.items():
        value = library.InferInput(name, list(tensor.shape), _type(tensor))
        value.set_data_from_numpy(tensor)
        found.append(value)
    return found


def _type(tensor: Tensor) -> str:
    """Triton's name of a tensor's type."""
    if tensor.dtype == np.object_:
        return "BYTES"
    names = {"f": "FP", "i": "INT", "u": "UINT"}
    return f"{names[tensor.dtype.kind]}{tensor.dtype.itemsize * 8}"
