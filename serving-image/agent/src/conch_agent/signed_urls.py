"""Signed URLs in texts: their query gives access, so it is in no message and no log."""

from __future__ import annotations

import re
from typing import Final

# The query of a URL, and what a query has that gives access: a signature, such as of a SAS token, or a token.
_QUERY: Final = re.compile(r"(?:\?|%3F)[^\s\"'<>]*", re.IGNORECASE)
_ACCESS: Final = re.compile(r"(?:sig(?:nature)?|token|password|secret)(?:=|%3D)", re.IGNORECASE)


def hide_signatures(text: str) -> str:
    """Return a text without the queries of URLs that give access.

    Args:
        text: The text.

    >>> hide_signatures("https://host/m?sp=rl&sig=c2ln cannot be reached: is the port open?")
    'https://host/m?... cannot be reached: is the port open?'
    """
    return _QUERY.sub(lambda query: "?..." if _ACCESS.search(query[0]) else query[0], text)
