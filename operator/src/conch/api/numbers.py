"""Numbers of a spec as text: Kubernetes' API conventions exclude floats, and a Quantity has no sign."""

from fractions import Fraction
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule

_PERCENT: Final = "^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$"
NUMBER_PATTERN: Final = "^[-+]?[0-9]{1,15}([.][0-9]{1,15})?([eE][-+]?[0-9]{1,2})?$"

Percent = Annotated[
    str,
    Field(max_length=16),
    Rule(
        f"self.matches('{_PERCENT}')",
        message="not a percentage; write a number from 0 to 100 with a % sign, such as 99.9%",
    ),
]
"""A percentage as text, so that it is exact. `percent` parses it."""

Number = Annotated[
    int | str,
    Field(json_schema_extra={"maxLength": 36, "x-kubernetes-int-or-string": True}),
    Rule(
        f"string(self).matches('{NUMBER_PATTERN}')",
        message="not a number; write an integer, or a decimal number in quotes, such as '0.01'",
    ),
]
"""An integer, or a decimal number in quotes."""


def percent(text: str) -> Fraction:
    """Return a percentage as an exact fraction.

    >>> percent("99.9%")
    Fraction(999, 1000)

    Raises:
        ValueError: `text` is not a percentage.
    """
    if not text.endswith("%"):
        raise ValueError(f"{text!r} is not a percentage; write a number and a % sign, such as 99.9%")
    return Fraction(text[:-1]) / 100
