"""Kubernetes quantities, such as `500m` or `64Mi`: their type in the schema, and how to read and write them.

Source: k8s.io/apimachinery, pkg/api/resource, Quantity.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import Field

from conch.api.cel import Rule

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE]|)")
_SUFFIXES: Final = {
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("num", -3)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


def cel_is_quantity(value: str) -> str:
    """Return the CEL that checks whether CEL's quantity() can read a value.

    An exponent of nine digits keeps the API server busy until the request times out (measured, 1.36), and the pattern
    of the field is no guard: rules are evaluated even where it does not match.
    """
    return f"(!string({value}).matches('[eE].*[0-9]{{3}}') && isQuantity(string({value})))"


# The pattern that Kubernetes generates for resource.Quantity, without its sign, and with an exponent of two digits at
# most.
_AMOUNT: Final = "^([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"

Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"maxLength": 32, "x-kubernetes-int-or-string": True}),
    # One rule, not a pattern and a rule: the CRD has some twenty quantities, and a pattern has no message of its own.
    Rule(
        f"string(self).matches('{_AMOUNT}') && quantity(string(self)).isLessThan(quantity('1P'))",
        # Kubernetes counts thousandths in 64 bits.
        message="must be an amount below 1P (1000T), such as 2, 500m or 64Mi",
    ),
]
"""An amount as Kubernetes counts it: `2`, `500m`, `64Mi`."""


def parse_quantity(value: Any) -> Decimal | None:
    """Return the amount of a quantity; None where the value is no quantity.

    >>> [str(parse_quantity(value)) for value in ("500m", "64Mi", "2e3", "-1k", "1Ei", 4)]
    ['0.500', '67108864', '2E+3', '-1000', '1152921504606846976', '4']
    >>> [parse_quantity(value) for value in ("1 Gi", "many", "", "1.2.3", None, ["1"])]
    [None, None, None, None, None, None]
    """
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None:
        return None
    number, suffix = match.groups()
    try:
        return Decimal(number) * _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(number + suffix)
    except ArithmeticError:
        return None


def format_quantity(value: Fraction | float) -> str:
    """Return a number as a quantity, as exactly as its suffixes allow: to a billionth.

    >>> format_quantity(3), format_quantity(0.05), format_quantity(Fraction(1, 3)), format_quantity(0)
    ('3', '50m', '333333333n', '0')
    """
    billionths = round(Fraction(value) * 10**9)
    for suffix, size in (("", 10**9), ("m", 10**6), ("u", 10**3)):
        if billionths % size == 0:
            return f"{billionths // size}{suffix}"
    return f"{billionths}n"


def to_decimal(quantity: str) -> str:
    """Return a quantity as a decimal number without a suffix, for readers that know no suffixes, such as KEDA.

    >>> to_decimal("50m"), to_decimal("1k"), to_decimal("4"), to_decimal("1Mi"), to_decimal("1.5"), to_decimal("2e3")
    ('0.05', '1000', '4', '1048576', '1.5', '2000')

    Raises:
        ValueError: the text is no quantity.
    """
    amount = parse_quantity(quantity)
    if amount is None:
        raise ValueError(f"{quantity!r} is not a quantity; write a number such as 4, 0.5 or 500m")
    return f"{amount.normalize():f}"
