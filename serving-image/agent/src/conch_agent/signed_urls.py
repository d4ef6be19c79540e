"""Signed URLs in texts, those with a password, and JSON Web Tokens: what gives access is in no message and no log."""

from __future__ import annotations

import re
from typing import Final

# The query of a URL, and what a query has that gives access: a signature, such as of a SAS token, or a token.
_QUERY: Final = re.compile(r"(?:\?|%3F)[^\s\"'<>]*", re.IGNORECASE)
_ACCESS: Final = re.compile(r"(?:sig(?:nature)?|token|password|secret)(?:=|%3D)", re.IGNORECASE)

# The header of a JSON Web Token (RFC 7519), which is a JSON object in base64url, and what follows it.
_JWT: Final = re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*)*")
_USER: Final = re.compile(r"(?<=://)[^/\s?#@]+@")


def hide_signatures(text: str) -> str:
    """Return a text without the queries of URLs that give access, users and passwords in URLs, and JSON Web Tokens.

    A server may repeat the token of a request that it refuses.

    Args:
        text: The text.

    >>> hide_signatures("https://host/m?sp=rl&sig=c2ln cannot be reached: is the port open?")
    'https://host/m?... cannot be reached: is the port open?'
    >>> hide_signatures("https://user:password@host/m and oci://host/m@sha256:00")
    'https://...@host/m and oci://host/m@sha256:00'
    >>> hide_signatures("the token 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln' is refused")
    "the token '...' is refused"
    """
    text = _QUERY.sub(lambda query: "?..." if _ACCESS.search(query[0]) else query[0], text)
    return _JWT.sub("...", _USER.sub("...@", text))
