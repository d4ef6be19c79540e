"""The clock of decisions: it follows the system's clock without its jumps of minutes or hours."""

import time
from collections.abc import Callable
from typing import Final

_RATE: Final = 0.1  # seconds by which it approaches the system's clock in a second
_TOO_FAR: Final = 86400.0  # seconds; a system's clock so far away was wrong when the process began, or is wrong now


class SteadyClock:
    """Returns the seconds since the epoch.

    A machine's clock is set by an hour when a suspended machine wakes, or when its time server comes back. A pause of a
    rollout would end at once, or last an hour longer, and deadlines would fail a healthy rollout. Here a second takes
    between 0.9 and 1.1 s instead, until the clocks agree. A difference of more than a day is taken over at once.

    >>> wall, monotonic = iter([1000.0, 4601.0, 4602.0]), iter([0.0, 1.0, 2.0])
    >>> clock = SteadyClock(lambda: next(wall), lambda: next(monotonic))
    >>> [round(clock() - 1000, 1) for _ in range(2)]  # set forward by an hour
    [1.1, 2.2]
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._now, self._read = wall(), monotonic()

    def __call__(self) -> float:
        """Return the time."""
        wall, read = self._wall(), self._monotonic()
        passed = read - self._read
        ahead = wall - (self._now + passed)
        most = passed * _RATE
        self._now = wall if abs(ahead) > _TOO_FAR else self._now + passed + min(max(ahead, -most), most)
        self._read = read
        return self._now
