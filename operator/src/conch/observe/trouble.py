"""What stands in the way, as a value: the pure rooms answer with it instead of raising."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """A reason in one CamelCase word, and the sentence that the user reads."""

    reason: str
    message: str
