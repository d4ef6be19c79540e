"""Parsing and formatting of Kubernetes' timestamps. No clock: times are arguments."""

from datetime import UTC, datetime


def parse_time(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def is_time(text: object) -> bool:
    """Return whether a value is an RFC 3339 time that `parse_time` parses.

    >>> is_time("2026-01-01T00:00:00Z"), is_time("yesterday"), is_time(None)
    (True, False, False)
    """
    try:
        return isinstance(text, str) and parse_time(text) is not None
    except (ValueError, OverflowError):
        return False


def format_time(moment: float) -> str:
    """Return a metav1.Time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
