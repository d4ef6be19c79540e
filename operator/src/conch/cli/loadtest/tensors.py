"""Valid requests for a model: those of its warm-up in the manifest, or requests generated from its metadata.

Generated requests follow the rules of the warm-up (`conch_agent.warmup.requests`): a model that was warmed by them
answers these too. The code is separate because the operator cannot import the agent, the contract must not depend on
numpy, and tritonclient takes arrays.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.utils import triton_to_np_dtype

from conch.api import Warmup
from conch.cli.options import CommandError
from conch_contract.parsing import parse_json

Tensor = npt.NDArray[Any]

# Users send different requests: so many are generated, and sent in turn.
VARIETY: Final = 8
_REALS: Final = {"FP16", "FP32", "FP64", "BF16"}
_TEXT: Final = b"load"
_REMEDY: Final = "write valid requests into spec.predictor.warmup.requests; load sends those instead"


@dataclass(frozen=True)
class Input:
    """One input of a request."""

    name: str
    datatype: str
    tensor: Tensor


@dataclass(frozen=True)
class Request:
    """An inference request; `label` is its name in messages."""

    label: str
    inputs: tuple[Input, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_manifest_requests(warmup: Warmup) -> list[Request]:
    """Return the requests of the warm-up in the manifest, if there are any."""
    return [
        _parse_request(
            f"requests[{number}] of the warm-up" + (f" ({request.name})" if request.name else ""),
            [tensor.to_wire() for tensor in request.inputs],
            request.parameters or {},
        )
        for number, request in enumerate(warmup.requests)
    ]


def parse_config_map(name: str, data: Mapping[str, str]) -> list[Request]:
    """Return the requests of the warm-up's ConfigMap, one a key.

    Raises:
        CommandError: one of them is not an inference request.
    """
    found = []
    for key, text in sorted(data.items()):
        label = f"key {key} of ConfigMap {name}"
        try:
            body = parse_json(text)
            found.append(_parse_request(label, body["inputs"], body.get("parameters") or {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(f"{label} is not an inference request (KServe v2 JSON): {error!r}") from error
    return found


def generate_request(metadata: Mapping[str, Any], config: Mapping[str, Any], seed: int = 0) -> Request:
    """Return a request of the smallest shape that the model takes: free dimensions, the batch's too, are 1.

    Floats are random, by the seed; integers are 0, an index that every table has; texts are a word.

    Raises:
        CommandError: the metadata has no inputs, or one of an unknown datatype.
    """
    optional = {each["name"] for each in config.get("input", ()) if each.get("optional")}
    tensors = [tensor for tensor in metadata.get("inputs", ()) if tensor["name"] not in optional]
    if not tensors:
        raise CommandError(f"model {metadata.get('name')} has no required input in its metadata; {_REMEDY}")
    random = np.random.default_rng(seed)
    return Request(
        "the request generated from the model's metadata",
        tuple(Input(each["name"], each["datatype"], _generate_tensor(each, random)) for each in tensors),
    )


def list_open_dimensions(metadata: Mapping[str, Any], batches: bool) -> list[str]:
    """Return the inputs with dimensions that the model leaves open, besides the batch's, as `name [-1, 3]`."""
    found = ((tensor["name"], [int(size) for size in tensor["shape"]]) for tensor in metadata.get("inputs", ()))
    return [f"{name} {shape}" for name, shape in found if any(size < 0 for size in shape[1 if batches else 0 :])]


def build_remedy(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the remedy for a generated request that the model rejects."""
    batches = int(config.get("max_batch_size") or 0) > 0
    opened = list_open_dimensions(metadata, batches=batches)
    why = f"its metadata leaves dimensions open, for which 1 was used: {', '.join(opened)}; " if opened else ""
    return f"{why}{_REMEDY}"


def _generate_tensor(spec: Mapping[str, Any], random: np.random.Generator) -> Tensor:
    shape, datatype = [max(1, int(size)) for size in spec["shape"]], spec["datatype"]
    if datatype == "BYTES":
        return np.full(shape, _TEXT, dtype=np.object_)
    if datatype in _REALS:
        return random.random(shape).astype(_find_dtype(spec["name"], datatype))
    return np.zeros(shape, dtype=_find_dtype(spec["name"], datatype))


def _parse_request(label: str, tensors: Iterable[Mapping[str, Any]], parameters: Mapping[str, Any]) -> Request:
    """Read a request as JSON spells it. Its data may be nested or flat."""
    inputs = []
    for tensor in tensors:
        name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        values = np.array(list(_flatten(tensor["data"])), dtype=_find_dtype(name, datatype))
        if values.size != int(np.prod(shape, dtype=np.int64)):
            raise CommandError(f"{label}: input {name} has {values.size} values, but the shape {list(shape)}")
        inputs.append(Input(name, datatype, values.reshape(shape)))
    return Request(label, tuple(inputs), parameters)


def _find_dtype(name: str, datatype: str) -> Any:
    found = triton_to_np_dtype(datatype)
    if found is None:
        raise CommandError(f"input {name} is of datatype {datatype}, which this kubectl-conch cannot send")
    return found


def _flatten(data: Any) -> Iterable[Any]:
    """Yield the numbers and texts of a list, nested or not; texts as bytes, as Triton has them."""
    if isinstance(data, Sequence) and not isinstance(data, str):
        for each in data:
            yield from _flatten(each)
    else:
        yield data.encode() if isinstance(data, str) else data
