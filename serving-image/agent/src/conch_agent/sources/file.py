"""`file:///path`: a folder or file in the agent's container, such as one of a user's volume."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from conch_agent.sources.base import Location, parse_path
from conch_agent.sources.local import LocalSource


def open_source(location: Location) -> LocalSource:
    """Return the source of a path. Links that leave it are refused.

    Args:
        location: The location.

    Raises:
        Failure: UnsafePath.
    """
    root = Path("/") / parse_path(unquote(urlsplit(location.uri).path).strip("/"), location.uri)
    return LocalSource(location.uri, root, root)
