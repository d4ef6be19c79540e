"""What a criterion is, and how one is evaluated whose figure is bounded by a number, or by R's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
"""Figures of the parts of the bench by name, such as `operator`; a part that was not run has none."""


@dataclass(frozen=True)
class Reading:
    """What was measured for one criterion.

    Attributes:
        measured: with its unit.
        is_met: whether the target is reached; None: there is none, and the figure is for reading.
        reference: R's, with its unit; empty: R has none.
        peer: KServe's; empty: it has none.
        ratio: of Conch to what the target compares it with.
    """

    measured: str
    is_met: bool | None
    reference: str = ""
    peer: str = ""
    ratio: float | None = None


@dataclass(frozen=True)
class Criterion:
    """One requirement of a target.

    Attributes:
        target: such as P4.
        what: is measured.
        goal: the requirement.
        read: returns the reading; None: it was not measured.
        where: what measures it where the bench does not.
    """

    target: str
    what: str
    goal: str
    read: Callable[[Results], Reading | None] = lambda _: None
    where: str = ""


def show(value: float | None, unit: str) -> str:
    """Return a figure with its unit; empty: there is none.

    >>> show(5.0, "ms"), show(1234.5, ""), show(None, "ms")
    ('5 ms', '1,234.5', '')
    """
    return "" if value is None else f"{value:,.10g} {unit}".strip()


def median(results: Results, measurement: str, who: str, figure: str, **conditions: float) -> float | None:
    """Return the median of a figure over the rounds of the operator's bench; None: there are none.

    >>> runs = [{"measurement": "burst", "who": "R", "services": 500, "mib": mib} for mib in (1.0, 3.0, 7.0)]
    >>> median({"operator": runs}, "burst", "R", "mib", services=500)
    3.0
    >>> median({"operator": runs}, "burst", "R", "mib", services=200)
    """
    wanted = {"measurement": measurement, "who": who, **conditions}
    runs = (run for run in results.get("operator", ()) if all(run.get(name) == value for name, value in wanted.items()))
    found = [run[figure] for run in runs if figure in run]
    return statistics.median(found) if found else None


def by_reference(
    measurement: str, figure: str, unit: str, bound: float, *, at_least: bool = False, **conditions: float
) -> Callable[[Results], Reading | None]:
    """Return the reading of a figure whose ratio to R's has a bound."""

    def read(results: Results) -> Reading | None:
        conch = median(results, measurement, "conch", figure, **conditions)
        reference = median(results, measurement, "R", figure, **conditions)
        if conch is None or not reference:
            return None
        ratio = conch / reference
        is_met = ratio >= bound if at_least else ratio <= bound
        return Reading(show(conch, unit), is_met, show(reference, unit), ratio=ratio)

    return read


def at_most(
    measurement: str, figure: str, unit: str, bound: float, **conditions: float
) -> Callable[[Results], Reading | None]:
    """Return the reading of a figure that has a bound, beside R's."""

    def read(results: Results) -> Reading | None:
        conch = median(results, measurement, "conch", figure, **conditions)
        reference = median(results, measurement, "R", figure, **conditions)
        if conch is None:
            return None
        return Reading(show(conch, unit), conch <= bound, show(reference, unit))

    return read
