"""A condition before it has a lastTransitionTime."""

from dataclasses import dataclass
from typing import Final, Literal

from conch.api import ConditionType

Truth = Literal["True", "False", "Unknown"]
OF_VARIANT: Final = "Variant "
"""What the message of a condition of the service begins with, where it is that of a variant."""


@dataclass(frozen=True)
class FailedWrite:
    """Why an object of the predictor, or of a variant, is not written.

    A failure that may pass is no condition before it lasts. Meanwhile the condition Ready does not become True.
    """

    reason: str
    message: str
    lasts: bool
    final: bool  # another attempt alone does not mend it


@dataclass(frozen=True)
class PendingCondition:
    """A condition without its times."""

    type: ConditionType
    status: Truth
    reason: str
    message: str
