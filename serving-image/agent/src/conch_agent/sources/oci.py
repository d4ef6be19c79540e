"""Files of an artifact in a registry of the Open Container Initiative.

A tag is resolved to the digest of its manifest first, so that all files are of one artifact. Later pods fetch that
digest.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Item, Listing, Location
from conch_agent.sources.oci_documents import Index, select_manifest
from conch_agent.sources.oci_layers import list_layers
from conch_agent.sources.oci_registry import Registry
from conch_agent.sources.oci_settings import KEYS, parse_settings
from conch_agent.sources.oci_uri import parse_uri

__all__ = ["KEYS", "OciSource", "open_source"]

_ALL: Final = ""  # the path of the version of all files
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}  # in Go's words; others are the same


def open_source(location: Location) -> OciSource:
    """Return the source of an artifact in a registry.

    Args:
        location: The location.

    Raises:
        Failure: The URI or a value of the Secret is invalid.
    """
    return OciSource(location.uri, location.secret)


class OciSource:
    """`oci://host/name:tag/path`: the files of an artifact or of a folder of it, or one file."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        self.uri = uri
        self._artifact = parse_uri(uri)
        self._registry = Registry(uri, self._artifact, parse_settings(secret))

    async def list_files(self) -> Listing:
        """Return the files of the manifest that the reference names, as in Source."""
        return await self._list(self._artifact.reference)

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the digest of the manifest, or of the index that leads to it.

        Args:
            listing: The files.
        """
        return {_ALL: listing.stored[0].version}

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the files of a manifest, as in VersionedSource.

        Args:
            versions: The digest of the manifest or index, with an empty path.
        """
        digest = versions.get(_ALL, "")
        try:
            return await self._list(digest)
        except Failure as failure:
            if failure.reason != Reason.NOT_FOUND:
                raise
            message = f"The registry no longer has the manifest {digest}, which this revision serves."
            raise Failure(failure.reason, message) from failure

    def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the rest of the file, as in Source."""
        return self._registry.read_blob(item.key, offset, item.size)

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: the files are not local."""
        return None

    async def _list(self, reference: str) -> Listing:
        digest, document = await self._registry.read_manifest(reference)
        if isinstance(document, Index):
            machine = platform.machine()
            selected = select_manifest(document, _ARCHITECTURES.get(machine, machine), self.uri)
            _, document = await self._registry.read_manifest(selected.digest)
        if isinstance(document, Index):
            message = f"{self.uri} is an index of indexes. Write the digest of one manifest as @sha256:... into it."
            raise Failure(Reason.UNSUPPORTED, message)
        return list_layers(document, self._artifact, digest, self.uri)
