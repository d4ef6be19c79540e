"""Inference responses as values, and their comparison with expected outputs, without I/O."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conch_contract.parsing import parse_json

_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_TYPES: Final = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}

Tensor = Mapping[str, Any]


@dataclass(frozen=True)
class RawTensor:
    """A tensor as it was sent, which can be sent again.

    Attributes:
        head: Its JSON object, which has the data unless they are binary.
        raw: Its binary data; empty: the data are in `head`.
    """

    head: Tensor
    raw: bytes


def read_raw_tensors(content: bytes, header: int | None, kind: str) -> dict[str, RawTensor]:
    """Return the tensors of a request or a response by name.

    Args:
        content: The body.
        header: Length of the JSON if binary tensors follow it, in their order.
        kind: `inputs` or `outputs`.

    Raises:
        ValueError: The body is no such request or response; also KeyError and TypeError.
    """
    rest = content[header:] if header is not None else b""
    tensors = {}
    for tensor in parse_json(content[:header])[kind]:
        size = tensor.get("parameters", {}).get("binary_data_size", 0)
        tensors[tensor["name"]] = RawTensor(tensor, rest[:size])
        rest = rest[size:]
    return tensors


def read_outputs(content: bytes, header: int | None) -> dict[str, dict[str, Any]]:
    """Return the outputs of a response by name, each with a flat list as `data`.

    Args:
        content: The body of the response.
        header: Length of the JSON if binary tensors follow it, in the order of the outputs (Triton's binary tensor data
            extension of the v2 protocol).

    Raises:
        ValueError: The body is no such response; also KeyError and TypeError.
    """
    answer = parse_json(content[:header])
    rest = memoryview(content)[header:] if header is not None else memoryview(b"")
    outputs = {}
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = list(_flatten(output["data"]))
        else:
            data, rest = _unpack(output["datatype"], rest[:size]), rest[size:]
        outputs[output["name"]] = {**output, "data": data}
    return outputs


def describe_mismatch(expected: Sequence[Tensor], got: Mapping[str, Tensor], tolerance: float) -> str:
    """Return the first difference from the expected outputs, with output, index and values; empty if there is none.

    Args:
        expected: The expected outputs.
        got: The outputs of the answer by name.
        tolerance: A floating-point value may differ by tolerance * max(1, |expected|). All other values are equal.
    """
    for tensor in expected:
        name = tensor.get("name")
        output = got.get(str(name))
        if output is None:
            return f"there is no output {name!r}; the answer has {', '.join(sorted(got)) or 'none'}"
        if "shape" in tensor and list(tensor["shape"]) != list(output.get("shape", ())):
            return f"output {name!r} has the shape {output.get('shape')}, expected {list(tensor['shape'])}"
        values = list(_flatten(tensor.get("data", [])))
        if len(values) != len(output["data"]):
            return f"output {name!r} has {len(output['data'])} values, expected {len(values)}"
        floats = output.get("datatype") in _FLOATS
        for index, (expected_value, value) in enumerate(zip(values, output["data"], strict=True)):
            if not _is_alike(expected_value, value, tolerance if floats else 0.0):
                return f"output {name!r} at index {index}: expected {_shorten(expected_value)}, got {_shorten(value)}"
    return ""


def _is_alike(expected_value: Any, value: Any, tolerance: float) -> bool:
    if tolerance and isinstance(expected_value, int | float) and isinstance(value, int | float):
        return math.isclose(expected_value, value, rel_tol=0.0, abs_tol=tolerance * max(1.0, abs(expected_value)))
    return bool(expected_value == value)


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _flatten(data: Any) -> Iterator[Any]:
    """Yield the values of nested lists in row-major order. The protocol allows nested and flat lists."""
    if isinstance(data, list | tuple):
        for item in data:
            yield from _flatten(item)
    else:
        yield data


def _unpack(datatype: str, raw: memoryview) -> list[Any]:
    if datatype == "BYTES":
        return list(_unpack_texts(raw))
    if datatype == "BF16":  # the upper half of an FP32
        wide = np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)
        return list(wide.view("<f4").tolist())
    return list(np.frombuffer(raw, _TYPES[datatype]).tolist())


def _unpack_texts(raw: memoryview) -> Iterator[str]:
    """Yield strings. Each follows its length in four bytes, little-endian."""
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        yield bytes(raw[4 : 4 + size]).decode(errors="replace")
        raw = raw[4 + size :]
