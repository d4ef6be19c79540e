"""Two answers side by side: whether they agree, and where they are farthest apart. Pure; the arithmetic is numpy's.

A NaN agrees with a NaN in the same place, an infinity with the same infinity, and neither with anything else.
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
_ROUNDING: Final = 1e-12  # of a cosine in double precision: a vector's with itself may be that far below 1
_LONGEST: Final = 100  # characters of a value

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Where two answers differ, and how far: comparable among the differences of one comparison."""

    far: float
    where: Disagreement


@dataclass(frozen=True)
class Incomparable:
    """Why the stable revision's answer holds nothing to compare with."""

    why: str


def compare(
    asked: Parity, stable: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> Difference | Incomparable | None:
    """Return the farthest difference of two answers (outputs by name, `data` flat); None where they agree."""
    missing = [name for name in asked.outputs if name not in stable]
    if missing:
        return Incomparable(f"the stable revision answers no output {missing[0]!r}, but {_listed(stable)}")
    names = [name for name in (asked.outputs or sorted(stable)) if _speaks(asked, stable[name])]
    if not names:
        return Incomparable(f"{_ASKS[asked.way]}, and the stable revision answers none; it answers {_listed(stable)}")
    if not asked.outputs:
        names = [name for name in names if name in candidate] or names[:1]
    differences = (_difference(asked, name, stable[name], candidate.get(name)) for name in names)
    return max((found for found in differences if found), key=lambda found: found.far, default=None)


_ASKS: Final = {
    "tolerance": "an output is asked for",
    "cosine": "cosine asks for an output of numbers",
    "argmax": "argmax asks for an output of numbers, with at least two along its last axis",
}


def _speaks(asked: Parity, tensor: Tensor) -> bool:
    """Whether an output can be compared in this way. Whole numbers are no vector unless the user names them."""
    if asked.way == "tolerance":
        return True
    kind = tensor.get("datatype")
    numeric = kind in _FLOATS or (bool(asked.outputs) and kind not in {"BYTES", "BOOL"})
    return numeric and (asked.way == "cosine" or _width(tensor) > 1)


def _difference(asked: Parity, name: str, stable: Tensor, candidate: Tensor | None) -> Difference | None:
    """Compare one output."""
    if candidate is None:
        return _whole(name, "an output", "none of that name")
    one, other = _shape(stable), _shape(candidate)
    if one != other:
        return _whole(name, f"the shape {list(one)}", f"the shape {list(other)}")
    kinds = {stable.get("datatype"), candidate.get("datatype")}
    # 64 bits of a whole number do not fit into a double, and texts have no distance.
    if "BYTES" in kinds or (asked.way == "tolerance" and not kinds & _FLOATS):
        return _plain(name, stable["data"], candidate["data"])
    return _numbers(asked, name, stable, candidate) if stable["data"] else None


def _numbers(asked: Parity, name: str, stable: Tensor, candidate: Tensor) -> Difference | None:
    if asked.way == "tolerance":
        return _by_tolerance(asked.bound, name, _array(stable), _array(candidate))
    rows = _array(stable).reshape(-1, _width(stable)), _array(candidate).reshape(-1, _width(stable))
    return _by_cosine(asked.bound, name, *rows) if asked.way == "cosine" else _by_argmax(name, *rows)


def _plain(name: str, stable: list[Any], candidate: list[Any]) -> Difference | None:
    """Compare what has no distance: equal or not."""
    if len(stable) != len(candidate):
        return _whole(name, f"{len(stable)} values", f"{len(candidate)} values")
    for index, (one, other) in enumerate(zip(stable, candidate, strict=True)):
        if one != other:
            return Difference(math.inf, _place(name, index, one, other, "must be equal"))
    return None


def _by_tolerance(bound: float, name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(candidate - stable) / np.maximum(1.0, np.abs(stable))
    same = (stable == candidate) | (np.isnan(stable) & np.isnan(candidate))
    far = np.where(same, 0.0, np.where(np.isfinite(stable) & np.isfinite(candidate), far, np.inf))
    index = int(np.argmax(far))
    if far[index] <= bound * (1 + 1e-9):  # a decimal bound is not exact in binary
        return None
    how = f"{far[index]:.3g} apart, {bound:.3g} is allowed" if math.isfinite(far[index]) else "not both finite"
    return Difference(float(far[index]), _place(name, index, stable[index], candidate[index], how))


def _by_cosine(bound: float, name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    """Compare rows by the cosine between them; two zero vectors point the same way, one points nowhere."""
    cosines = np.array([_cosine(one, other) for one, other in zip(stable, candidate, strict=True)])
    row = int(np.argmin(cosines))
    if cosines[row] >= bound - _ROUNDING:
        return None
    column = int(np.argmax(np.nan_to_num(np.abs(candidate[row] - stable[row]), nan=np.inf)))
    told = f"cosine {cosines[row]:.6g} of row {row}" if math.isfinite(cosines[row]) else f"row {row} is not finite"
    how = f"{told}, at least {bound:.6g} is asked"
    place = _place(name, row * stable.shape[1] + column, stable[row, column], candidate[row, column], how)
    return Difference(1.0 - float(cosines[row]), place)


def _cosine(one: Numbers, other: Numbers) -> float:
    if np.array_equal(one, other, equal_nan=True):
        return 1.0
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return -math.inf
    # Scaled first, so that no square leaves the range of a double.
    one, other = (row / (np.abs(row).max() or 1.0) for row in (one, other))
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0


def _by_argmax(name: str, stable: Numbers, candidate: Numbers) -> Difference | None:
    """Compare what each row chooses. The distance is what the stable revision gives its choice above the other's."""
    found: list[Difference] = []
    for row, (one, other) in enumerate(zip(stable, candidate, strict=True)):
        if np.array_equal(one, other, equal_nan=True):
            continue
        chosen, instead = int(np.argmax(one)), int(np.argmax(other))
        finite = not (np.isnan(one).any() or np.isnan(other).any())
        if finite and one[instead] == one[chosen]:  # the same, or a tie
            continue
        margin = float(one[chosen] - one[instead]) if finite else math.inf
        how = f"row {row} has its largest value at {chosen}, the candidate's at {instead}"
        how = how if finite else f"row {row} has values that are no number"
        index = row * stable.shape[1] + (chosen if finite else int(np.argmax(np.isnan(one) | np.isnan(other))))
        values = stable.flat[index], candidate.flat[index]
        found.append(Difference(margin, _place(name, index, *values, how)))
    return max(found, key=lambda each: each.far, default=None)


def _whole(name: str, stable: str, candidate: str) -> Difference:
    return Difference(math.inf, Disagreement(output=name, stable=stable, candidate=candidate))


def _place(name: str, index: int, stable: Any, candidate: Any, how: str) -> Disagreement:
    return Disagreement(output=name, index=index, stable=_short(stable), candidate=_short(candidate), how=how)


def _short(value: Any) -> str:
    text = f"{float(value):.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _array(tensor: Tensor) -> Numbers:
    return np.asarray(tensor["data"], dtype=np.float64)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.get("shape") or (len(tensor["data"]),))


def _width(tensor: Tensor) -> int:
    return _shape(tensor)[-1]


def _listed(outputs: Mapping[str, Tensor]) -> str:
    return ", ".join(
        f"{name} ({tensor.get('datatype')} {list(_shape(tensor))})" for name, tensor in sorted(outputs.items())
    )
