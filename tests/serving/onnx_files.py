"""Small ONNX files, written field by field (onnx.proto): y = x * factor, and what tests want to vary."""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT = 1
Shape = Sequence[int | str]


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, shape: Shape) -> bytes:
    sizes = b"".join(_field(1, _field(1, size) if isinstance(size, int) else _field(2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, sizes)))


def pack_factor(factor: float) -> bytes:
    """Return the factor as the bytes of a tensor."""
    return struct.pack("<f", factor)


def multiply(factor: float, shape: Shape = ("N", 2), *, overridable: bool = False, weights: str = "") -> bytes:
    """Return the model y = x * factor for floats of `shape`; a text is a free dimension.

    With `overridable` the factor is an input "factor" too, which a request may leave out. With `weights` the factor is
    in a file of that name, beside the model (`pack_factor`).
    """
    outside = _field(13, _field(1, "location") + _field(2, weights)) + _field(14, 1)
    value = outside if weights else _field(9, pack_factor(factor))
    graph = _field(1, _field(1, "x") + _field(1, "factor") + _field(2, "y") + _field(4, "Mul"))
    graph += _field(2, "graph")
    graph += _field(5, _field(2, FLOAT) + _field(8, "factor") + value)
    graph += _field(11, _tensor("x", shape))
    if overridable:
        graph += _field(11, _tensor("factor", ()))
    graph += _field(12, _tensor("y", shape))
    return _field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph)
