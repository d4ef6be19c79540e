"""Waiting for what a user would wait for: a look, again and again, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY = 0.2  # seconds between looks


class TooLateError(AssertionError):
    """What was waited for did not come; the text says what, how long, and what was seen instead."""


def until(look: Callable[[], T | None], what: str, seconds: float, *, seen: Callable[[], object] | None = None) -> T:
    """Return the first true value of `look`.

    Args:
        look: asked every 0.2 s; an answer that is not true means: not yet. What it raises ends the wait.
        what: the rest of the sentence "not within 30 s: ...".
        seconds: the deadline.
        seen: what to show at the end instead of the last answer.

    Raises:
        TooLateError: the deadline has passed.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TooLateError(f"not within {seconds:g} s: {what}; seen at the end: {seen() if seen else value!r}")
        time.sleep(EVERY)
