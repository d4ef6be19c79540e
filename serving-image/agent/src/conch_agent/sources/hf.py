"""Files of a repository on a hub with the API of huggingface.co, which can be one in the cluster.

A revision is resolved to its commit first, so that all files are of one commit. Later pods fetch that commit.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Entry, Item, Listing, Location, build_listing
from conch_agent.sources.hf_answers import TreeFile
from conch_agent.sources.hf_hub import EntryNotFoundError, Hub
from conch_agent.sources.hf_settings import KEYS, parse_settings
from conch_agent.sources.hf_uri import parse_uri

__all__ = ["KEYS", "HfSource", "open_source"]

_ALL: Final = ""  # the path of the version of all files


def open_source(location: Location) -> HfSource:
    """Return the source of a repository on a hub.

    Args:
        location: The location.

    Raises:
        Failure: The URI or a value of the Secret is invalid.
    """
    return HfSource(location.uri, location.secret)


class HfSource:
    """`hf://owner/name@revision/path`: the files of a repository or of a folder of it, or one file."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        self.uri = uri
        self._place = parse_uri(uri)
        self._hub = Hub(uri, self._place, parse_settings(secret))

    async def list_files(self) -> Listing:
        """Return the files of the revision's commit, as in Source."""
        return await self._list(await self._hub.find_commit())

    async def find_versions(self, listing: Listing) -> dict[str, str]:
        """Return the commit of all files.

        Args:
            listing: The files.
        """
        return {_ALL: listing.items[0].version}

    async def list_versions(self, versions: Mapping[str, str]) -> Listing:
        """Return the files of a commit, as in VersionedSource.

        Args:
            versions: The commit, with an empty path.
        """
        commit = versions.get(_ALL, "")
        try:
            return await self._list(commit)
        except Failure as failure:
            if failure.reason != Reason.NOT_FOUND:
                raise
            message = f"The hub no longer has the files of commit {commit}, which this revision serves."
            raise Failure(failure.reason, message) from failure

    def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the rest of the file, as in Source."""
        return self._hub.read_file(item.version, item.key, offset)

    def find_local(self, item: Item) -> Path | None:  # noqa: ARG002  the protocol's
        """Return None, as in Source: the files are not local."""
        return None

    async def _list(self, commit: str) -> Listing:
        """Return the files below the path, or the file of that path."""
        missing: Failure | None = None
        try:
            files = await self._hub.list_folder(commit, self._place.path, recursive=True)
        except EntryNotFoundError as error:
            files, missing = [], error.failure
        files = files or await self._find_file(commit)
        if missing and not files:
            raise missing
        return build_listing([self._build_entry(file, commit) for file in files], self.uri)

    async def _find_file(self, commit: str) -> list[TreeFile]:
        """Return the file of the path, if there is one."""
        path = self._place.path
        if not path or self._place.is_folder:
            return []
        try:
            siblings = await self._hub.list_folder(commit, path.rpartition("/")[0], recursive=False)
        except EntryNotFoundError:
            return []
        return [file for file in siblings if file.path == path]

    def _build_entry(self, file: TreeFile, commit: str) -> Entry:
        path = self._place.path
        if file.path == path:
            return file.to_entry(PurePosixPath(path).name, commit)
        folder = f"{path}/" if path else ""
        if not file.path.startswith(folder):
            message = (
                f"{self.uri}: the hub lists {file.path[:200]!r}, which is not below {path!r}. Correct HF_ENDPOINT in"
                " the storage Secret, or that hub."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        return file.to_entry(file.path.removeprefix(folder), commit)
