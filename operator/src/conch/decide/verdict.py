"""A condition before the status stamps it with a time."""

from dataclasses import dataclass
from typing import Literal

from conch.api import ConditionType

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Unwritten:
    """Why an object of the predictor, or of a variant, is not written: a reason, and the sentence that the user reads.

    One that may pass is no condition before it lasts. Meanwhile the condition Ready does not become True.
    """

    reason: str
    message: str
    lasts: bool
    final: bool  # another attempt alone does not mend it


@dataclass(frozen=True)
class Verdict:
    """A condition without its clock."""

    type: ConditionType
    status: Truth
    reason: str
    message: str
