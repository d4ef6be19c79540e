"""Kubernetes' timestamps, both ways. No clock here: a moment is an argument."""

from datetime import UTC, datetime


def parse_time(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def format_time(moment: float) -> str:
    """Return a metav1.Time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
