"""When a latency is stable, and how many connections reach every pod: arithmetic, pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_MISS: Final = 1000  # a pod of a revision is missed in one of so many warm-ups, at most


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` percent of the values do not exceed (nearest rank); 0 of nothing.

    >>> [percentile([4, 1, 3, 2], share) for share in (1, 50, 51, 99)]
    [1, 2, 3, 4]
    """
    if not values:
        return 0.0
    return sorted(values)[max(1, math.ceil(len(values) * share / 100)) - 1]


def settled(before: float, now: float, within: float) -> bool:
    """Tell whether a round's percentile is within a fraction of that of the round before.

    >>> settled(10.0, 12.0, 0.2), settled(10.0, 7.9, 0.2)
    (True, False)
    """
    return abs(now - before) <= within * before


def connections(pods: int) -> int:
    """Return how many connections, each to a random pod, miss any of `pods` with a chance of 1 in 1000 at most.

    A given pod is missed by k connections with (1 - 1/n)^k <= exp(-k/n), one of n by n times that
    (the union bound of the coupon collector): so k = n ln(1000 n). Two at least: one round is no comparison.

    >>> [connections(pods) for pods in (1, 2, 3, 8)]
    [2, 16, 25, 72]
    """
    return 2 if pods <= 1 else math.ceil(pods * math.log(_MISS * pods))
