"""Waiting for what a user would wait for: a look, again and again, until a deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 0.2  # seconds between looks
# Seconds after which a wait has failed. It bounds how long a failed test lasts, and is no statement about speed:
# machines that run the suite differ, and so does what else they do. Only a story that takes longer has a deadline of
# its own.
DEADLINE = 150.0
TIMEOUT = f"--timeout={DEADLINE:g}s"  # the same for kubectl wait, delete and rollout status
_waits: list[tuple[str, float]] = []


class TooLateError(AssertionError):
    """A condition was not met in time; the text has the condition, the deadline, and what was seen instead."""


def until(
    look: Callable[[], T | None], what: str, seconds: float = DEADLINE, *, seen: Callable[[], object] | None = None
) -> T:
    """Return the first true value of `look`.

    Args:
        look: called every 0.2 s; a value that is not true means: not yet. What it raises ends the wait.
        what: the rest of the sentence "not within 30 s: ...".
        seconds: the deadline.
        seen: what to show at the end instead of the last answer.

    Raises:
        TooLateError: the deadline has passed.
    """
    deadline = time.monotonic() + seconds
    with record_wait(what):
        while True:
            value = look()
            if value:
                return value
            if time.monotonic() > deadline:
                raise TooLateError(f"not within {seconds:g} s: {what}; seen at the end: {seen() if seen else value!r}")
            time.sleep(EVERY)


@contextlib.contextmanager
def record_wait(what: str) -> Iterator[None]:
    """Record how long the block takes, for the list of the slowest tests (tests/support/timing.py)."""
    began = time.monotonic()
    try:
        yield
    finally:
        _waits.append((what, time.monotonic() - began))


def take_waits() -> list[tuple[str, float]]:
    """Return each wait since the last call, as its description and its seconds; threads may add to it meanwhile."""
    taken = _waits[:]
    del _waits[: len(taken)]
    return taken
