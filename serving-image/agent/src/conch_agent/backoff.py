"""Waiting that grows: retries for ever, never in step with other pods."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Seconds to wait before the next try: doubles from `first` to `longest`, then half to full of it.

    >>> waits = Backoff(first=1, longest=4, _random=lambda: 1.0)
    >>> [waits.next() for _ in range(4)]
    [1.0, 2.0, 4.0, 4.0]
    """

    first: float
    longest: float
    tries: int = 0
    _random: object = field(default=random.random, repr=False)

    def next(self) -> float:
        """Return the next wait in seconds."""
        full = min(self.longest, self.first * 2.0 ** min(self.tries, 30))
        self.tries += 1
        share = self._random() if callable(self._random) else 1.0
        return full * (0.5 + 0.5 * share)

    def reset(self) -> None:
        """Start again from `first`, after a success."""
        self.tries = 0
