"""The slope of figures over time, which a few outliers do not change."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

_Z: Final = 1.96  # of a normal distribution: 95 % are nearer to the mean than so many standard deviations


@dataclass(frozen=True)
class Slope:
    """A slope with its confidence interval of 95 %, in units of y for one unit of x.

    Attributes:
        median: of the slopes between all pairs of points (Theil and Sen).
        low: lower end of the interval.
        high: upper end.
    """

    median: float
    low: float
    high: float

    def scale(self, factor: float) -> Slope:
        """Return the slope in other units; the factor is above 0."""
        return Slope(self.median * factor, self.low * factor, self.high * factor)


def compute_slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the Theil-Sen slope of points (x, y).

    The interval is Sen's (Estimates of the regression coefficient based on Kendall's tau, 1968): it is right for
    deviations that do not depend on each other, and too narrow for others.

    >>> compute_slope([(0, 1), (1, 3), (2, 5), (3, 100), (4, 9)]).median
    2.0

    Raises:
        ValueError: there are no two points of different x.
    """
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0])
    if not slopes:
        raise ValueError(f"a slope needs two points of different x, and there are {len(points)} points")
    count = len(points)
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Slope(statistics.median(slopes), slopes[low], slopes[high])


def describe(slope: Slope) -> str:
    """Return a growth of memory, in MiB a day, as text.

    >>> describe(Slope(1.0, -2.0, 4.04))
    '+1.0 MiB a day (95 %: -2.0 to +4.0)'
    """
    return f"{slope.median:+.1f} MiB a day (95 %: {slope.low:+.1f} to {slope.high:+.1f})"
