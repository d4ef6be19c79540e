"""The arithmetic of rounds: percentiles, a stable latency, and the number of connections that reach all pods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_MISS: Final = 1000  # at most one of so many warm-ups misses a pod of the revision


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of values by nearest rank; 0 without values.

    Args:
        values: The values.
        share: The percentile, 1 to 100.

    >>> [percentile([4, 1, 3, 2], share) for share in (1, 50, 51, 99)]
    [1, 2, 3, 4]
    """
    if not values:
        return 0.0
    return sorted(values)[max(1, math.ceil(len(values) * share / 100)) - 1]


def is_stable(before: float, now: float, within: float) -> bool:
    """Return True if a round's percentile is within a fraction of that of the round before.

    Args:
        before: Percentile of the round before.
        now: Percentile of the round.
        within: The fraction.

    >>> is_stable(10.0, 12.0, 0.2), is_stable(10.0, 7.9, 0.2)
    (True, False)
    """
    return abs(now - before) <= within * before


def count_connections(pods: int) -> int:
    """Return the number of connections, each to a random pod, that miss a pod with a probability of at most 1 in 1000.

    The probability that k connections miss a given pod is (1 - 1/n)^k <= exp(-k/n), and that they miss one of n is at
    most n times that (the union bound of the coupon collector): so k = n ln(1000 n). At least two, for a comparison.

    Args:
        pods: The number of pods.

    >>> [count_connections(pods) for pods in (1, 2, 3, 8)]
    [2, 16, 25, 72]
    """
    return 2 if pods <= 1 else math.ceil(pods * math.log(_MISS * pods))
