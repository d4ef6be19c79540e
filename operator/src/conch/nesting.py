"""How deep an object of the API server may be nested.

Whoever may create an object of a kind that we list can nest its managedFields, whatever the schema. Python's parser
fails beyond its recursion limit, and with one such object the whole list is lost.
"""

import sys
from typing import Final

# The API server takes 10,000 levels. Each takes one step of the limit and some 400 bytes of the stack, which has 8 MB.
_LEVELS: Final = 12_000


def allow_deep_objects() -> None:
    """Let this process parse whatever the API server stores."""
    sys.setrecursionlimit(_LEVELS)
