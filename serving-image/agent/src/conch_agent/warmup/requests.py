"""The requests of a warm-up: from the manifest, from files, or made from the model's own metadata.

Whatever the source, one becomes a `Request`: the bytes to post, and the name by which the user knows it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from conch_agent.reasons import Failure, Reason
from conch_agent.record import digest
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.warmup.answers import Tensor
from conch_contract import Warmup, WarmupRequest
from conch_contract.parsing import parse_json

SYNTHESISED: Final = "the request made from the model's metadata"
_MOST_FILES: Final = 256
_MOST_BYTES: Final = 64 * 1024 * 1024
_TEXT: Final = b"warm-up"
_REALS: Final = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_WIDTHS: Final = {
    "BOOL": 1,
    "UINT8": 1,
    "INT8": 1,
    "UINT16": 2,
    "INT16": 2,
    "UINT32": 4,
    "INT32": 4,
    "UINT64": 8,
    "INT64": 8,
    "BF16": 2,
}


@dataclass(frozen=True)
class Request:
    """`label` is what a message calls it; `header` is the length of the JSON where binary tensors follow it."""

    label: str
    content: bytes
    header: int | None = None
    expected: tuple[Tensor, ...] = ()


def inline(requests: Iterable[WarmupRequest]) -> list[Request]:
    """Return the manifest's own requests."""
    return [
        _posted(f"requests[{index}]" + (f" ({request.name})" if request.name else ""), request.body, request.expected)
        for index, request in enumerate(requests)
    ]


def from_config_map(warmup: Warmup, mounted: Path) -> list[Request]:
    """Return one request for each key of the ConfigMap; `mounted` is the folder of all that are mounted."""
    files = _files(mounted / warmup.config_map, "*")
    if not files:
        message = (
            f"The ConfigMap {warmup.config_map!r} that warmup.configMapRef names does not exist, or is empty. "
            "Create it in the service's namespace, with one inference request as JSON (KServe v2) a key."
        )
        raise Failure(Reason.WARMUP_MISSING, message)
    return _parsed(files, f"ConfigMap {warmup.config_map}, key ")


def digest_config_map(warmup: Warmup, mounted: Path) -> str:
    """Return the digest of the requests in the ConfigMap, by key; empty where the warm-up has none."""
    files = _files(mounted / warmup.config_map, "*") if warmup.config_map else []
    return digest({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) if files else ""


def from_folder(warmup: Warmup, storage_uri: str, files: Path) -> list[Request]:
    """Return one request for each .json file of the folder inside the model's storage, whose files lie at `files`."""
    found = _files(files / warmup.path, "*.json")
    if not found:
        message = (
            f"{storage_uri} has no file {warmup.path}/*.json, which warmup.path names. Put inference requests as "
            "JSON (KServe v2) there, one a file, or correct the path."
        )
        if is_excluded_path(warmup.path):
            message += " A folder of that name is never part of a model (it is hidden or a tool's own); rename it."
        raise Failure(Reason.WARMUP_MISSING, message)
    return _parsed(found, f"{warmup.path}/")


def synthesised(metadata: Mapping[str, Any], config: Mapping[str, Any], seed: int = 0) -> Request:
    """Return a request of the smallest shape that the model takes: free dimensions, the batch's too, are 1.

    Floats are random, the same at each call; whole numbers are 0 (an index that every table has: a GPU that meets one
    that a table lacks is lost to its users); texts are a word. Another seed gives other floats, texts and booleans.
    """
    known = {each["name"]: each for each in config.get("input", ())}
    random = np.random.default_rng(seed)
    inputs, tail = [], b""
    for tensor in metadata.get("inputs", ()):
        if known.get(tensor["name"], {}).get("optional"):
            continue
        shape = [size if size > 0 else 1 for size in map(int, tensor["shape"])]
        raw = _values(tensor["datatype"], int(np.prod(shape, dtype=np.int64)), random, seed)
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "parameters": size})
        tail += raw
    parameters: dict[str, Any] = {"binary_data_output": True}
    if "sequence_batching" in config:
        parameters |= {"sequence_id": 1, "sequence_start": True, "sequence_end": True}
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    label = f"{SYNTHESISED}, seed {seed}" if seed else SYNTHESISED
    return Request(label, body + tail, len(body))


def _values(datatype: str, count: int, random: np.random.Generator, seed: int) -> bytes:
    if datatype == "BYTES":
        text = _TEXT + (f" {seed}".encode() if seed else b"")
        return (struct.pack("<I", len(text)) + text) * count
    if datatype in _REALS:
        return bytes(random.random(count).astype(_REALS[datatype]).tobytes())
    if datatype == "BF16":
        upper = random.random(count).astype("<f4").view("<u4") >> np.uint32(16)
        return bytes(upper.astype("<u2").tobytes()) if seed else bytes(2 * count)
    if datatype == "BOOL" and seed:
        return bytes(random.integers(0, 2, count, dtype=np.uint8).tobytes())
    return bytes(count * _WIDTHS[datatype])


def _posted(label: str, body: Mapping[str, Any], expected: tuple[Tensor, ...]) -> Request:
    """Ask for binary outputs unless the user says otherwise: Triton has no JSON for 16-bit floats."""
    parameters = {"binary_data_output": True, **(body.get("parameters") or {})}
    return Request(label, json.dumps({**body, "parameters": parameters}).encode(), None, expected)


def _parsed(files: list[Path], origin: str) -> list[Request]:
    if sum(file.stat().st_size for file in files) > _MOST_BYTES:
        message = (
            f"The warm-up requests ({origin}{files[0].name}, ...) hold over {_MOST_BYTES} bytes; use smaller ones."
        )
        raise Failure(Reason.WARMUP_FAILED, message)
    return [_request(f"{origin}{file.name}", file) for file in files]


def _request(label: str, file: Path) -> Request:
    try:
        said = parse_json(file.read_bytes())
    except ValueError as error:
        message = f"Warm-up request {label} is no JSON: {error}. Write it as an inference request (KServe v2)."
        raise Failure(Reason.WARMUP_FAILED, message) from error
    expected = said.get("expected", []) if isinstance(said, dict) else None
    parameters = (said.get("parameters") or {}) if isinstance(said, dict) else None
    if (
        not isinstance(expected, list)
        or not all(isinstance(each, dict) for each in expected)
        or not isinstance(parameters, dict)
    ):
        message = (
            f'Warm-up request {label} is no inference request: write a JSON object with "inputs" and, if the answer '
            'is to be checked, "expected", a list of outputs with "name" and "data".'
        )
        raise Failure(Reason.WARMUP_FAILED, message)
    return _posted(label, {key: value for key, value in said.items() if key != "expected"}, tuple(expected))


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the folder's files by name; Kubernetes' own dot-files are left out."""
    found = [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    return sorted(found)[:_MOST_FILES]
