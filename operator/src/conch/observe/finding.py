"""What stands in the way, as a value: the pure packages answer with it instead of raising."""

from dataclasses import dataclass

from conch.api.text import clean


@dataclass(frozen=True)
class Finding:
    """A reason in one CamelCase word, and the sentence that the user reads."""

    reason: str
    message: str

    def __post_init__(self) -> None:
        """Clean what may be foreign: all that is in the way of a service reaches its status as one of these."""
        object.__setattr__(self, "reason", clean(self.reason))
        object.__setattr__(self, "message", clean(self.message))
