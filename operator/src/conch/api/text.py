"""Cleaning of foreign text: of pods, Prometheus, gateways and API servers.

The operator compares the stored status with the next one, so a text is cleaned when it is read, not when it is written:
otherwise an API server that replaces a character would cause a write at each reconcile.
"""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from conch_contract.parsing import parse_json

LIMIT: Final = 4096  # bytes of UTF-8
# Bytes of a text in foreign JSON: less, so that it fits into a message.
_FOREIGN: Final = 3072
_CUT: Final = "…"
# Lone surrogates have no UTF-8. Control characters but tab and newline move a terminal's cursor or end its text.
_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str, limit: int = LIMIT) -> str:
    r"""Return a text that every API server stores unchanged, of at most `limit` bytes of UTF-8.

    >>> clean("caf\u00e9 \ud800 \x1b[31m"), clean("caf\u00e9", limit=4)
    ('café � �[31m', 'c…')
    """
    fit = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    coded = fit.encode()
    if len(coded) <= limit:
        return fit
    return coded[: limit - len(_CUT.encode())].decode(errors="ignore") + _CUT


Text = Annotated[str, AfterValidator(clean)]
"""Foreign text in a status."""


def read_json(text: str | bytes, most_values: int | None = None) -> Any:
    """Return the value of foreign JSON, with clean texts.

    Args:
        text: the JSON.
        most_values: the maximum number of its values, counted by the separators before them; None: any number.

    Raises:
        ValueError: the text is not JSON, has too many values, or is nested deeper than the parser goes.
    """
    if most_values is not None:
        coded = text.encode(errors="replace") if isinstance(text, str) else text
        if sum(coded.count(separator) for separator in (b",", b"[", b"{")) > most_values:
            raise ValueError(f"JSON of more than {most_values} values")
    try:
        return _clean_all(parse_json(text))
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value, _FOREIGN)
    if isinstance(value, list):
        return [_clean_all(item) for item in value]
    if isinstance(value, dict):
        return {clean(key, _FOREIGN): _clean_all(item) for key, item in value.items()}
    return value
