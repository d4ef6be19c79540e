"""A status with less in it, for an API server that does not take all of it.

The status is the memory of a rollout. A text in it, of whatever origin, must not keep that memory from being stored:
a rollout without memory has no deadline, so it would stay at its weight for good.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_BRIEF: Final = 256  # characters of a message in the first reduction
_MESSAGES: Final = frozenset({"message"})
# What people read, and no decision depends on.
_DETAILS: Final = _MESSAGES | {"models", "url", "value", "bound", "p50", "p99", "requestsPerSecond"}


def reductions(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a status as it is written with less and less in it: brief messages, none, and what decisions need."""
    yield _reduce(status, frozenset())
    yield _reduce(status, _MESSAGES)
    yield _reduce(status, _DETAILS)


def _reduce(value: Any, dropped: frozenset[str]) -> Any:
    """Return the value without the dropped fields; the messages that stay are brief and plain ASCII."""
    if isinstance(value, Mapping):
        return {
            key: _brief(item) if key == "message" else _reduce(item, dropped)
            for key, item in value.items()
            if key not in dropped
        }
    if isinstance(value, list):
        return [_reduce(item, dropped) for item in value]
    return value


def _brief(message: str) -> str:
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in message)
    return plain if len(plain) <= _BRIEF else plain[: _BRIEF - 3] + "..."
