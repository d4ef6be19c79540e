"""Numbers of a spec as text: Kubernetes' API conventions keep floats out, and a Quantity has no sign."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule

_PERCENT: Final = "^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$"
_QUANTITY: Final = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?|[KMGTPE]i)")
_SUFFIX: Final = {
    **{letter: Decimal(1000) ** power for power, letter in enumerate("num", -3)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
NUMBER_PATTERN: Final = "^[-+]?[0-9]{1,15}([.][0-9]{1,15})?([eE][-+]?[0-9]{1,2})?$"

Percent = Annotated[
    str,
    Field(max_length=16),
    Rule(
        f"self.matches('{_PERCENT}')",
        message="not a percentage; write a number from 0 to 100 with a % sign, such as 99.9%",
        expression="'\"' + self + '\" is not a percentage; write a number from 0 to 100 with a % sign, such as 99.9%'",
    ),
]
"""A share as text, so that 99.9 % is exactly that. Read with `percent`."""

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
    """Return a percentage as an exact share.

    >>> percent("99.9%")
    Fraction(999, 1000)

    Raises:
        ValueError: `text` is no such percentage.
    """
    if not text.endswith("%"):
        raise ValueError(f"{text!r} is not a percentage; write a number and a % sign, such as 99.9%")
    return Fraction(text[:-1]) / 100


def plain(quantity: str) -> str:
    """Write a Kubernetes quantity as a plain decimal number, for those who do not know its suffixes.

    >>> plain("50m"), plain("1k"), plain("4"), plain("1Mi"), plain("1.5"), plain("2e3")
    ('0.05', '1000', '4', '1048576', '1.5', '2000')

    Raises:
        ValueError: it is no quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write a number such as 4, 0.5 or 500m")
    return f"{(Decimal(match[1]) * _SUFFIX.get(match[2], Decimal(1))).normalize():f}"
