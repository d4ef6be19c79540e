"""Parsing of JSON from other writers."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.

    Raises:
        ValueError: The text is no JSON, or nested deeper than the parser goes.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: JSON nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
