"""Numbers and times of gates as text. Rounding never makes a number outside its bound equal to it."""

import math
from datetime import UTC, datetime
from fractions import Fraction


def format_share(share: Fraction) -> str:
    """Return a share in percent, rounded down to four digits.

    >>> format_share(Fraction(1, 3)), format_share(Fraction(1))
    ('33.3333%', '100%')
    """
    return f"{math.floor(share * 1_000_000) / 10_000:.4f}".rstrip("0").rstrip(".") + "%"


def round_up(value: float, digits: int) -> str:
    """Return a number rounded up to at most `digits` decimal places.

    >>> round_up(50.0001, 3), round_up(50.0, 3)
    ('50.001', '50')
    """
    return f"{math.ceil(round(value * 10**digits, 3)) / 10**digits:.{digits}f}".rstrip("0").rstrip(".")


def compare_min(minimum: str, *, passed: bool) -> str:
    """Return the end of a message that compares a value with its bound.

    >>> compare_min("95%", passed=False)
    'is below the minimum of 95%'
    """
    return f"{'meets' if passed else 'is below'} the minimum of {minimum}"


def compare_max(maximum: str, *, passed: bool) -> str:
    """Return the end of a message that compares a value with its bound.

    >>> compare_max("50ms", passed=True)
    'is within the maximum of 50ms'
    """
    return f"{'is within' if passed else 'exceeds'} the maximum of {maximum}"


def format_moment(now: float) -> str:
    """Return an RFC 3339 time in milliseconds, rounded up, so that the next window begins after this evaluation."""
    return datetime.fromtimestamp(math.ceil(now * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
