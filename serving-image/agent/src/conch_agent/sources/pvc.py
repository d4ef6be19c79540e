"""`pvc://claim/path`: a folder or file of a persistent volume claim that the pod mounts."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from conch_agent.sources.base import Location, parse_path
from conch_agent.sources.local import LocalSource


def open_source(location: Location) -> LocalSource:
    """Return the source of a claim. Links that leave its mount are refused.

    Args:
        location: The location.

    Raises:
        Failure: UnsafePath.
    """
    parts = urlsplit(location.uri)
    claim = location.claims / parse_path(parts.netloc, location.uri)
    path = unquote(parts.path).strip("/")
    return LocalSource(location.uri, claim / parse_path(path, location.uri) if path else claim, claim)
