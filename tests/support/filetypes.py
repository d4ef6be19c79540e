"""The real model of tests and demo: magika, Google's file-type detector, as its wheel carries it.

The model reads the first and the last 1,024 bytes of a file, without white space at the ends, and gives a
score to each of 214 types. What comes before the model is done here, by the algorithm that magika documents
(src/magika.py, features extraction v2), because Triton's clients send tensors, not files.
"""

from __future__ import annotations

import functools
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import magika
import numpy as np
import numpy.typing as npt

from tests.support.traffic import RepeatedRequest

MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
INPUT, OUTPUT = "bytes", "target_label"

Features = npt.NDArray[np.int32]


@functools.cache
def config() -> dict[str, Any]:
    """Return what the model was trained with: sizes, the padding token, the names of the types."""
    found: dict[str, Any] = json.loads(MODEL.with_name("config.min.json").read_text())
    return found


def features(content: bytes) -> Features:
    """Return the model's input for a file's bytes: int32 [1, 2048].

    >>> features(b"  hello  ")[0, :6].tolist()
    [104, 101, 108, 108, 111, 32]
    """
    settings = config()
    size, block, padding = settings["beg_size"], settings["block_size"], settings["padding_token"]
    begin = content[:block].lstrip()[:size]
    end = content[-block:].rstrip()[-size:]
    row = np.full(2 * size, padding, dtype=np.int32)
    row[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    row[2 * size - len(end) :] = np.frombuffer(end, dtype=np.uint8)
    return row.reshape(1, -1)


def label(scores: npt.NDArray[np.float32]) -> tuple[str, float]:
    """Return the most likely type and its score."""
    best = int(np.argmax(scores))
    return config()["target_labels_space"][best], float(scores.ravel()[best])


@functools.cache
def expected(content: bytes) -> str:
    """Return what magika itself answers when it runs the model on this machine."""
    return str(magika.Magika().identify_bytes(content).dl.label)


def picture_request(model: str) -> RepeatedRequest:
    """Return the request of traffic: the type of a picture, some milliseconds of work for the model."""

    def right(scores: npt.NDArray[Any]) -> bool:
        return label(scores)[0] == "png"

    return RepeatedRequest(model, INPUT, features(samples()["dot.png"]), OUTPUT, right)


def samples() -> dict[str, bytes]:
    """Return three real files of different types: a source, a picture, a program."""
    return {
        "filetypes.py": Path(__file__).read_bytes(),
        "dot.png": _picture(),
        Path(sys.executable).name: Path(sys.executable).resolve().read_bytes(),
    }


def _picture() -> bytes:
    """Return a PNG of 64 by 64 pixels in the colours of a sunrise (PNG specification, sections 5 and 11)."""
    side = 64
    rows = b"".join(
        b"\0" + bytes(value for x in range(side) for value in (255 - y, 3 * x, 4 * y % 256)) for y in range(side)
    )
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
