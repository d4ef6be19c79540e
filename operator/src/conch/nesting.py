"""The maximum nesting of objects that this process can parse.

No schema bounds the managedFields of an object, so a user who may create objects of a kind that we list can nest them.
Python's parser fails beyond its recursion limit, and one such object is enough for the whole list to fail.
"""

import sys
from typing import Final

# The API server takes 10,000 levels. Each takes one step of the limit and some 400 bytes of the stack, which has 8 MB.
_LEVELS: Final = 12_000


def allow_deep_objects() -> None:
    """Set the recursion limit so that this process can parse all objects of the API server."""
    sys.setrecursionlimit(_LEVELS)
