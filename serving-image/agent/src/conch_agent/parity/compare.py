"""The comparison of two answers, with numpy and without I/O.

A NaN agrees with a NaN at the same index, an infinity with the same infinity, and neither with any other value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from conch_agent.warmup.answers import Tensor
from conch_contract import Disagreement, Parity

_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_ROUNDING: Final = 1e-12  # of a cosine in double precision: that of a vector with itself may be that much below 1
_LONGEST: Final = 100  # characters of a value

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference of two answers.

    Attributes:
        distance: Its size, comparable among the differences of one comparison.
        disagreement: Its description.
    """

    distance: float
    disagreement: Disagreement


@dataclass(frozen=True)
class Incomparable:
    """The reason why the stable revision's answer has no output to compare."""

    message: str


def compare(
    settings: Parity, stable: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> Difference | Incomparable | None:
    """Return the largest difference of two answers; None where they agree.

    Args:
        settings: The method of the comparison.
        stable: The stable revision's outputs by name, each with a flat list as `data`.
        candidate: The candidate's outputs.
    """
    missing = [name for name in settings.outputs if name not in stable]
    if missing:
        return Incomparable(f"the stable revision answers no output {missing[0]!r}, but {_list_outputs(stable)}")
    names = [name for name in (settings.outputs or sorted(stable)) if _is_comparable(settings, stable[name])]
    if not names:
        return Incomparable(
            f"{_REQUIREMENTS[settings.method]}, and the stable revision answers none; it answers"
            f" {_list_outputs(stable)}"
        )
    if not settings.outputs:
        names = [name for name in names if name in candidate] or names[:1]
    differences = (_compare_output(settings, name, stable[name], candidate.get(name)) for name in names)
    return max(
        (difference for difference in differences if difference),
        key=lambda difference: difference.distance,
        default=None,
    )


_REQUIREMENTS: Final = {
    "tolerance": "tolerance needs an output",
    "cosine": "cosine needs an output of numbers",
    "argmax": "argmax needs an output of numbers, with at least two along its last axis",
}


def _is_comparable(settings: Parity, tensor: Tensor) -> bool:
    """Return True if the method can compare an output. Whole numbers are a vector only if the user names the output."""
    if settings.method == "tolerance":
        return True
    kind = tensor.get("datatype")
    numeric = kind in _FLOATS or (bool(settings.outputs) and kind not in {"BYTES", "BOOL"})
    return numeric and (settings.method == "cosine" or _get_width(tensor) > 1)


def _compare_output(settings: Parity, name: str, stable: Tensor, candidate: Tensor | None) -> Difference | None:
    """Return the difference of an output; None where there is none."""
    if candidate is None:
        return _build_whole(name, "an output", "none of that name")
    stable_shape, candidate_shape = _get_shape(stable), _get_shape(candidate)
    if stable_shape != candidate_shape:
        return _build_whole(name, f"the shape {list(stable_shape)}", f"the shape {list(candidate_shape)}")
    kinds = {stable.get("datatype"), candidate.get("datatype")}
    # A double has less than the 64 bits of a whole number, and texts have no distance.
    if "BYTES" in kinds or (settings.method == "tolerance" and not kinds & _FLOATS):
        return _compare_exactly(name, stable["data"], candidate["data"])
    return _compare_numbers(settings, name, stable, candidate) if stable["data"] else None


def _compare_numbers(settings: Parity, name: str, stable: Tensor, candidate: Tensor) -> Difference | None:
    if settings.method == "tolerance":
        return _compare_by_tolerance(settings.bound, name, _to_array(stable), _to_array(candidate))
    rows = _to_array(stable).reshape(-1, _get_width(stable)), _to_array(candidate).reshape(-1, _get_width(stable))
    return (
        _compare_by_cosine(settings.bound, name, *rows)
        if settings.method == "cosine"
        else _compare_by_argmax(name, *rows)
    )


def _compare_exactly(name: str, stable: list[Any], candidate: list[Any]) -> Difference | None:
    """Compare values that have no distance: they are equal or not."""
    if len(stable) != len(candidate):
        return _build_whole(name, f"{len(stable)} values", f"{len(candidate)} values")
    for index, (stable_value, candidate_value) in enumerate(zip(stable, candidate, strict=True)):
        if stable_value != candidate_value:
            return Difference(
                math.inf, _build_disagreement(name, index, stable_value, candidate_value, "must be equal")
            )
    return None


def _compare_by_tolerance(bound: float, name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(candidate - stable) / np.maximum(1.0, np.abs(stable))
    is_equal = (stable == candidate) | (np.isnan(stable) & np.isnan(candidate))
    distances = np.where(is_equal, 0.0, np.where(np.isfinite(stable) & np.isfinite(candidate), distances, np.inf))
    index = int(np.argmax(distances))
    if distances[index] <= bound * (1 + 1e-9):  # a decimal bound is not exact in binary
        return None
    detail = (
        f"{distances[index]:.3g} apart, {bound:.3g} is allowed"
        if math.isfinite(distances[index])
        else "not both finite"
    )
    return Difference(
        float(distances[index]), _build_disagreement(name, index, stable[index], candidate[index], detail)
    )


def _compare_by_cosine(bound: float, name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    """Compare rows by the cosine between them. It is 1 for two zero vectors, and 0 for one."""
    cosines = np.array([_compute_cosine(first, second) for first, second in zip(stable, candidate, strict=True)])
    row = int(np.argmin(cosines))
    if cosines[row] >= bound - _ROUNDING:
        return None
    column = int(np.argmax(np.nan_to_num(np.abs(candidate[row] - stable[row]), nan=np.inf)))
    measure = f"cosine {cosines[row]:.6g} of row {row}" if math.isfinite(cosines[row]) else f"row {row} is not finite"
    detail = f"{measure}, at least {bound:.6g} is required"
    disagreement = _build_disagreement(
        name, row * stable.shape[1] + column, stable[row, column], candidate[row, column], detail
    )
    return Difference(1.0 - float(cosines[row]), disagreement)


def _compute_cosine(first: Numbers, second: Numbers) -> float:
    if np.array_equal(first, second, equal_nan=True):
        return 1.0
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return -math.inf
    # Scaled before, so that no square leaves the range of a double.
    first, second = (row / (np.abs(row).max() or 1.0) for row in (first, second))
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms else 0.0


def _compare_by_argmax(name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    """Compare the index of each row's largest value.

    The distance is the difference of the stable revision's values at its own index and at the candidate's.
    """
    differences: list[Difference] = []
    for row, (stable_row, candidate_row) in enumerate(zip(stable, candidate, strict=True)):
        if np.array_equal(stable_row, candidate_row, equal_nan=True):
            continue
        stable_index, candidate_index = int(np.argmax(stable_row)), int(np.argmax(candidate_row))
        has_numbers = not (np.isnan(stable_row).any() or np.isnan(candidate_row).any())
        if has_numbers and stable_row[candidate_index] == stable_row[stable_index]:  # the same, or a tie
            continue
        margin = float(stable_row[stable_index] - stable_row[candidate_index]) if has_numbers else math.inf
        detail = f"row {row} has its largest value at {stable_index}, the candidate's at {candidate_index}"
        detail = detail if has_numbers else f"row {row} has values that are no number"
        index = row * stable.shape[1] + (
            stable_index if has_numbers else int(np.argmax(np.isnan(stable_row) | np.isnan(candidate_row)))
        )
        values = stable.flat[index], candidate.flat[index]
        differences.append(Difference(margin, _build_disagreement(name, index, *values, detail)))
    return max(differences, key=lambda difference: difference.distance, default=None)


def _build_whole(name: str, stable: str, candidate: str) -> Difference:
    return Difference(math.inf, Disagreement(output=name, stable=stable, candidate=candidate))


def _build_disagreement(name: str, index: int, stable: Any, candidate: Any, detail: str) -> Disagreement:
    return Disagreement(output=name, index=index, stable=_shorten(stable), candidate=_shorten(candidate), how=detail)


def _shorten(value: Any) -> str:
    text = f"{float(value):.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _to_array(tensor: Tensor) -> Numbers:
    return np.asarray(tensor["data"], dtype=np.float64)


def _get_shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.get("shape") or (len(tensor["data"]),))


def _get_width(tensor: Tensor) -> int:
    return _get_shape(tensor)[-1]


def _list_outputs(outputs: Mapping[str, Tensor]) -> str:
    return ", ".join(
        f"{name} ({tensor.get('datatype')} {list(_get_shape(tensor))})" for name, tensor in sorted(outputs.items())
    )
