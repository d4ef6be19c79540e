"""The schedule of a load test: when each request is due, from a rate and a duration. Pure.

It is an open loop: users do not wait for each other's answers. A loop that sends the next request after the last answer
sends fewer requests the slower the server is, and so omits the moments that it has to measure
("coordinated omission": Gil Tene, How NOT to Measure Latency, and his wrk2; what a closed loop hides otherwise:
Schroeder, Wierman and Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from conch.api._base import duration_seconds
from conch.cli.options import CommandError

_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_RATE: Final = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER}))?")
# Each outcome is kept until the end: about a gigabyte.
_MOST: Final = 5_000_000


@dataclass(frozen=True)
class Schedule:
    """Requests a second at the beginning and at the end, linear between, over so many seconds."""

    first: float
    last: float
    seconds: float

    @property
    def count(self) -> int:
        """Number of requests: the area under the rate, rounded up.

        >>> Schedule(20, 20, 10).count, Schedule(0, 100, 2).count, Schedule(0.1, 0.1, 1).count
        (200, 100, 1)
        """
        return math.ceil((self.first + self.last) / 2 * self.seconds)

    def dues(self) -> Iterator[float]:
        """Yield when each request is due, in seconds since the beginning.

        Request k is due when the area under the rate, a t + (b - a) t^2 / 2 s, has grown to k. Solved for t in the
        form that also holds where a = b.

        >>> [round(due, 3) for due in Schedule(2, 2, 2).dues()]
        [0.0, 0.5, 1.0, 1.5]
        >>> [round(due, 3) for due in Schedule(0, 4, 2).dues()]
        [0.0, 1.0, 1.414, 1.732]
        """
        slope = (self.last - self.first) / self.seconds
        yield 0.0
        for number in range(1, self.count):
            yield 2 * number / (self.first + math.sqrt(max(0.0, self.first**2 + 2 * slope * number)))


def parse_schedule(rate: str, duration: str) -> Schedule:
    """Return the schedule of `--rate` and `--duration`.

    Raises:
        CommandError: one of them is invalid.
    """
    length = parse_seconds("--duration", duration)
    found = _RATE.fullmatch(rate)
    if found is None:
        raise CommandError(f"--rate {rate}: expected requests a second, such as 50, or from..to such as 5..100")
    first = float(found[1])
    last = first if found[2] is None else float(found[2])
    if first == last == 0:
        raise CommandError(f"--rate {rate} has no requests; set a number above 0, such as 50, or a ramp such as 0..50")
    schedule = Schedule(first, last, length)
    if schedule.count > _MOST:
        raise CommandError(
            f"--rate {rate} for {duration} is {schedule.count} requests, and each is kept until the end; at most"
            f" {_MOST} are possible: lower --rate or --duration"
        )
    return schedule


def parse_seconds(option: str, text: str) -> float:
    """Return the duration in an option, in seconds.

    Raises:
        CommandError: it is not a duration, or 0.
    """
    try:
        found = duration_seconds(text)
    except ValueError as error:
        raise CommandError(f"{option} {error}") from error
    if found == 0:
        raise CommandError(f"{option} {text} is 0; set a duration such as 30s or 2m")
    return found
