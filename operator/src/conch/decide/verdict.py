"""A condition before the status stamps it with a time."""

from dataclasses import dataclass
from typing import Literal

from conch.api import ConditionType

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Verdict:
    """A condition without its clock."""

    type: ConditionType
    status: Truth
    reason: str
    message: str
