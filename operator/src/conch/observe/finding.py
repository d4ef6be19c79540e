"""Findings: problems as values, which the pure packages return instead of raising."""

from dataclasses import dataclass

from conch.api.text import clean


@dataclass(frozen=True)
class Finding:
    """A problem of a service: a reason in one CamelCase word, and a message for the user."""

    reason: str
    message: str

    def __post_init__(self) -> None:
        """Clean foreign text, since findings become conditions of the status."""
        object.__setattr__(self, "reason", clean(self.reason))
        object.__setattr__(self, "message", clean(self.message))
