"""Answers as values: what an inference response says, and whether it is what was expected. Pure."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
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


def read(content: bytes, header: int | None) -> dict[str, dict[str, Any]]:
    """Return the outputs of a response by name, each with a flat list as `data`.

    `header` is the length of the JSON where binary tensors follow it, in the order of the outputs (Triton's
    binary tensor data extension of the v2 protocol). Raises ValueError for what is no such response.
    """
    answer = parse_json(content[:header])
    rest = memoryview(content)[header:] if header is not None else memoryview(b"")
    outputs = {}
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = list(_flat(output["data"]))
        else:
            data, rest = _unpack(output["datatype"], rest[:size]), rest[size:]
        outputs[output["name"]] = {**output, "data": data}
    return outputs


def complaint(expected: Sequence[Tensor], got: Mapping[str, Tensor], tolerance: float) -> str:
    """Return the first difference in a sentence that names output, index, expected and got; empty if there is none.

    A floating-point value may differ by tolerance * max(1, |expected|); all others are compared as they are.
    """
    for tensor in expected:
        name = tensor.get("name")
        output = got.get(str(name))
        if output is None:
            return f"there is no output {name!r}; the answer has {', '.join(sorted(got)) or 'none'}"
        if "shape" in tensor and list(tensor["shape"]) != list(output.get("shape", ())):
            return f"output {name!r} has the shape {output.get('shape')}, expected {list(tensor['shape'])}"
        wanted = list(_flat(tensor.get("data", [])))
        if len(wanted) != len(output["data"]):
            return f"output {name!r} has {len(output['data'])} values, expected {len(wanted)}"
        floats = output.get("datatype") in _FLOATS
        for index, (want, have) in enumerate(zip(wanted, output["data"], strict=True)):
            if not _alike(want, have, tolerance if floats else 0.0):
                return f"output {name!r} at index {index}: expected {_short(want)}, got {_short(have)}"
    return ""


def _alike(want: Any, have: Any, tolerance: float) -> bool:
    if tolerance and isinstance(want, int | float) and isinstance(have, int | float):
        return math.isclose(want, have, rel_tol=0.0, abs_tol=tolerance * max(1.0, abs(want)))
    return bool(want == have)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _flat(data: Any) -> Iterator[Any]:
    """Yield the values of a list of lists in row-major order: the protocol allows both forms."""
    if isinstance(data, list | tuple):
        for item in data:
            yield from _flat(item)
    else:
        yield data


def _unpack(datatype: str, raw: memoryview) -> list[Any]:
    if datatype == "BYTES":
        return list(_texts(raw))
    if datatype == "BF16":  # the upper half of an FP32
        wide = np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)
        return list(wide.view("<f4").tolist())
    return list(np.frombuffer(raw, _TYPES[datatype]).tolist())


def _texts(raw: memoryview) -> Iterator[str]:
    """Yield strings, each behind its length in four bytes, little-endian."""
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        yield bytes(raw[4 : 4 + size]).decode(errors="replace")
        raw = raw[4 + size :]
