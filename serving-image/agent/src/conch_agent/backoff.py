"""Exponential backoff with jitter, so that pods do not retry at the same time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays in seconds that double from `first` to `longest`. The jitter takes up to half of a delay.

    >>> waits = Backoff(first=1, longest=4, _random=lambda: 1.0)
    >>> [waits.draw_delay() for _ in range(4)]
    [1.0, 2.0, 4.0, 4.0]
    """

    first: float
    longest: float
    tries: int = 0
    _random: object = field(default=random.random, repr=False)

    def draw_delay(self) -> float:
        """Return the next delay in seconds."""
        full = min(self.longest, self.first * 2.0 ** min(self.tries, 30))
        self.tries += 1
        share = self._random() if callable(self._random) else 1.0
        return full * (0.5 + 0.5 * share)

    def reset(self) -> None:
        """Set the next delay to `first`, after a success."""
        self.tries = 0
