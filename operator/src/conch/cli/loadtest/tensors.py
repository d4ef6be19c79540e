"""Valid requests for a model: those that its warm-up has in the manifest, or some made from its metadata.

What is made follows the warm-up's rules (`conch_agent.warmup.requests`): a model that was warmed by them answers these
too. The arithmetic is written anew because the two share no form: the agent posts bytes and may be imported by
nobody here, the contract between the two must not depend on numpy, and these are the arrays that tritonclient takes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.utils import triton_to_np_dtype

from conch.api import Warmup
from conch.cli.options import Refused
from conch_contract.parsing import parse_json

Tensor = npt.NDArray[Any]

# Users do not all ask the same: so many different requests are made, and asked in turn.
VARIETY: Final = 8
_REALS: Final = {"FP16", "FP32", "FP64", "BF16"}
_TEXT: Final = b"load"
_WAY: Final = "write requests that it takes into spec.predictor.warmup.requests, and they are asked here too"


@dataclass(frozen=True)
class Input:
    """One input of a request."""

    name: str
    datatype: str
    tensor: Tensor


@dataclass(frozen=True)
class Request:
    """`label` is what a message calls it."""

    label: str
    inputs: tuple[Input, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def written(warmup: Warmup) -> list[Request]:
    """Return the requests that the manifest has for the warm-up; none where it has none."""
    return [
        _read(
            f"requests[{number}] of the warm-up" + (f" ({request.name})" if request.name else ""),
            [tensor.to_wire() for tensor in request.inputs],
            request.parameters or {},
        )
        for number, request in enumerate(warmup.requests)
    ]


def from_config_map(name: str, data: Mapping[str, str]) -> list[Request]:
    """Return the requests of the warm-up's ConfigMap, one a key.

    Raises:
        Refused: one of them is no inference request.
    """
    found = []
    for key, text in sorted(data.items()):
        label = f"key {key} of ConfigMap {name}"
        try:
            body = parse_json(text)
            found.append(_read(label, body["inputs"], body.get("parameters") or {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{label} is no inference request (KServe v2 JSON): {error!r}") from error
    return found


def synthesised(metadata: Mapping[str, Any], config: Mapping[str, Any], seed: int = 0) -> Request:
    """Return a request of the smallest shape that the model takes: free dimensions, the batch's too, are 1.

    Floats are random, others by another seed; whole numbers are 0, an index that every table has; texts are a word.

    Raises:
        Refused: the model tells no inputs, or one of a datatype that is not known here.
    """
    optional = {each["name"] for each in config.get("input", ()) if each.get("optional")}
    told = [tensor for tensor in metadata.get("inputs", ()) if tensor["name"] not in optional]
    if not told:
        raise Refused(f"model {metadata.get('name')} tells of no input that has to be sent; {_WAY}")
    random = np.random.default_rng(seed)
    return Request(
        "the request made from the model's metadata",
        tuple(Input(each["name"], each["datatype"], _tensor(each, random)) for each in told),
    )


def free(metadata: Mapping[str, Any], batches: bool) -> list[str]:
    """Return the inputs with dimensions that the model leaves open, besides the batch's, as `name [-1, 3]`."""
    found = ((tensor["name"], [int(size) for size in tensor["shape"]]) for tensor in metadata.get("inputs", ()))
    return [f"{name} {shape}" for name, shape in found if any(size < 0 for size in shape[1 if batches else 0 :])]


def remedy(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Say what to do about a request made here that the model refuses."""
    batches = int(config.get("max_batch_size") or 0) > 0
    opened = free(metadata, batches=batches)
    why = f"its metadata leaves dimensions open, which were taken as 1: {', '.join(opened)}; " if opened else ""
    return f"{why}{_WAY}"


def _tensor(told: Mapping[str, Any], random: np.random.Generator) -> Tensor:
    shape, datatype = [max(1, int(size)) for size in told["shape"]], told["datatype"]
    if datatype == "BYTES":
        return np.full(shape, _TEXT, dtype=np.object_)
    if datatype in _REALS:
        return random.random(shape).astype(_dtype(told["name"], datatype))
    return np.zeros(shape, dtype=_dtype(told["name"], datatype))


def _read(label: str, tensors: Iterable[Mapping[str, Any]], parameters: Mapping[str, Any]) -> Request:
    """Read a request as JSON spells it. Its data may be nested or flat."""
    inputs = []
    for tensor in tensors:
        name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        values = np.array(list(_flat(tensor["data"])), dtype=_dtype(name, datatype))
        if values.size != int(np.prod(shape, dtype=np.int64)):
            raise Refused(f"{label}: input {name} has {values.size} values, but the shape {list(shape)}")
        inputs.append(Input(name, datatype, values.reshape(shape)))
    return Request(label, tuple(inputs), parameters)


def _dtype(name: str, datatype: str) -> Any:
    found = triton_to_np_dtype(datatype)
    if found is None:
        raise Refused(f"input {name} is of datatype {datatype}, which this kubectl-conch cannot send")
    return found


def _flat(data: Any) -> Iterable[Any]:
    """Yield the numbers and texts of a list, nested or not; texts as bytes, as Triton has them."""
    if isinstance(data, Sequence) and not isinstance(data, str):
        for each in data:
            yield from _flat(each)
    else:
        yield data.encode() if isinstance(data, str) else data
