"""The requests of a warm-up: from the manifest, from files, or made from the model's metadata."""

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
from conch_agent.record import compute_digest
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.warmup.answers import Tensor
from conch_contract import Warmup, WarmupRequest
from conch_contract.parsing import parse_json

SYNTHESISED_LABEL: Final = "the request made from the model's metadata"
_MAX_FILES: Final = 256
_MAX_BYTES: Final = 64 * 1024 * 1024
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
    """A request.

    Attributes:
        label: Its name in messages.
        content: The body.
        header: Length of the JSON if binary tensors follow it.
        expected: The expected outputs; empty: any answer is right.
    """

    label: str
    content: bytes
    header: int | None = None
    expected: tuple[Tensor, ...] = ()


def build_inline_requests(requests: Iterable[WarmupRequest]) -> list[Request]:
    """Return the requests of the manifest.

    Args:
        requests: The requests in the form of the manifest.
    """
    return [
        _build_request(
            f"requests[{index}]" + (f" ({request.name})" if request.name else ""), request.body, request.expected
        )
        for index, request in enumerate(requests)
    ]


def read_config_map(warmup: Warmup, mounted: Path) -> list[Request]:
    """Return a request for each key of the ConfigMap.

    Args:
        warmup: The settings of the warm-up.
        mounted: The folder in which ConfigMaps are mounted by name.

    Raises:
        Failure: WarmupMissing, or WarmupFailed for a request that is invalid.
    """
    files = _list_files(mounted / warmup.config_map, "*")
    if not files:
        message = (
            f"The ConfigMap {warmup.config_map!r} that warmup.configMapRef names does not exist, or is empty. "
            "Create it in the service's namespace, with one inference request as JSON (KServe v2) a key."
        )
        raise Failure(Reason.WARMUP_MISSING, message)
    return _read_requests(files, f"ConfigMap {warmup.config_map}, key ")


def digest_config_map(warmup: Warmup, mounted: Path) -> str:
    """Return the digest of the requests in the ConfigMap; empty where the warm-up has none.

    Args:
        warmup: The settings of the warm-up.
        mounted: The folder in which ConfigMaps are mounted by name.
    """
    files = _list_files(mounted / warmup.config_map, "*") if warmup.config_map else []
    return compute_digest({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) if files else ""


def read_folder(warmup: Warmup, storage_uri: str, files: Path) -> list[Request]:
    """Return a request for each .json file of a folder in the model's storage.

    Args:
        warmup: The settings of the warm-up.
        storage_uri: The storageUri, for messages.
        files: The folder of the model's files.

    Raises:
        Failure: WarmupMissing, or WarmupFailed for a request that is invalid.
    """
    request_files = _list_files(files / warmup.path, "*.json")
    if not request_files:
        message = (
            f"{storage_uri} has no file {warmup.path}/*.json, which warmup.path names. Put inference requests as "
            "JSON (KServe v2) there, one a file, or correct the path."
        )
        if is_excluded_path(warmup.path):
            message += " A folder of that name is never part of a model (it is hidden or a tool's own); rename it."
        raise Failure(Reason.WARMUP_MISSING, message)
    return _read_requests(request_files, f"{warmup.path}/")


def synthesise(metadata: Mapping[str, Any], config: Mapping[str, Any], seed: int = 0) -> Request:
    """Return a request of the smallest shape that the model accepts: free dimensions, also that of the batch, are 1.

    Floats are random, and the same for the same seed. Whole numbers are 0, which is an index of all tables: a GPU fails
    for all users after an index that a table lacks. Texts are a word. Another seed has other floats, texts and
    booleans.

    Args:
        metadata: Triton's metadata of the model.
        config: Triton's configuration of the model.
        seed: The seed.
    """
    known = {tensor["name"]: tensor for tensor in config.get("input", ())}
    random = np.random.default_rng(seed)
    inputs, tail = [], b""
    for tensor in metadata.get("inputs", ()):
        if known.get(tensor["name"], {}).get("optional"):
            continue
        shape = [size if size > 0 else 1 for size in map(int, tensor["shape"])]
        raw = _make_values(tensor["datatype"], int(np.prod(shape, dtype=np.int64)), random, seed)
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "parameters": size})
        tail += raw
    parameters: dict[str, Any] = {"binary_data_output": True}
    if "sequence_batching" in config:
        parameters |= {"sequence_id": 1, "sequence_start": True, "sequence_end": True}
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    label = f"{SYNTHESISED_LABEL}, seed {seed}" if seed else SYNTHESISED_LABEL
    return Request(label, body + tail, len(body))


def _make_values(datatype: str, count: int, random: np.random.Generator, seed: int) -> bytes:
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


def _build_request(label: str, body: Mapping[str, Any], expected: tuple[Tensor, ...]) -> Request:
    """Return a request for binary outputs, unless the user sets the parameter: Triton has no JSON for 16-bit floats."""
    parameters = {"binary_data_output": True, **(body.get("parameters") or {})}
    return Request(label, json.dumps({**body, "parameters": parameters}).encode(), None, expected)


def _read_requests(files: list[Path], origin: str) -> list[Request]:
    if sum(file.stat().st_size for file in files) > _MAX_BYTES:
        message = f"The warm-up requests ({origin}{files[0].name}, ...) hold over {_MAX_BYTES} bytes; use smaller ones."
        raise Failure(Reason.WARMUP_FAILED, message)
    return [_read_request(f"{origin}{file.name}", file) for file in files]


def _read_request(label: str, file: Path) -> Request:
    try:
        value = parse_json(file.read_bytes())
    except ValueError as error:
        message = f"Warm-up request {label} is no JSON: {error}. Write it as an inference request (KServe v2)."
        raise Failure(Reason.WARMUP_FAILED, message) from error
    expected = value.get("expected", []) if isinstance(value, dict) else None
    parameters = (value.get("parameters") or {}) if isinstance(value, dict) else None
    if (
        not isinstance(expected, list)
        or not all(isinstance(tensor, dict) for tensor in expected)
        or not isinstance(parameters, dict)
    ):
        message = (
            f'Warm-up request {label} is no inference request: write a JSON object with "inputs" and, if the answer '
            'is to be checked, "expected", a list of outputs with "name" and "data".'
        )
        raise Failure(Reason.WARMUP_FAILED, message)
    return _build_request(label, {key: item for key, item in value.items() if key != "expected"}, tuple(expected))


def _list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the folder's files by name, without the dot-files of Kubernetes."""
    paths = [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    return sorted(paths)[:_MAX_FILES]
