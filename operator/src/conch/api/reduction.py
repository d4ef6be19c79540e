"""Reduced forms of a status, for an API server that refuses the whole one.

The status has the state of a rollout. A text in it, of any origin, must not prevent the write of that state: a rollout
without state has no deadline and would stay at its weight.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_BRIEF: Final = 256  # characters of a message in the first reduction
_MESSAGES: Final = frozenset({"message"})
# Fields for users, on which no decision depends.
_DETAILS: Final = _MESSAGES | {"models", "url", "value", "bound", "p50", "p99", "requestsPerSecond"}


def reductions(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield reduced forms of a status: with short messages, without messages, and with the fields of decisions only."""
    yield _reduce(status, frozenset())
    yield _reduce(status, _MESSAGES)
    yield _reduce(status, _DETAILS)


def _reduce(value: Any, dropped: frozenset[str]) -> Any:
    """Return the value without the dropped fields and with short messages in ASCII."""
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
