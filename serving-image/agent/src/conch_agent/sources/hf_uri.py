"""The URI of a repository on a hub, `hf://owner/name[@revision][/path]`, as huggingface_hub reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from conch_agent.reasons import Failure, Reason
from conch_contract.schemes import SCHEMES

_SCHEME: Final = SCHEMES["hf"]
_DEFAULT: Final = "main"
_URI: Final = re.compile(
    r"hf://(?P<repository>[^/@]+/[^/@]+)"
    r"(@(?P<revision>refs/pr/[0-9]+|refs/convert/[A-Za-z0-9_]+|[^/@]+))?"
    r"(?P<path>/.*)?"
)


@dataclass(frozen=True)
class HubPath:
    """A file or folder of a repository.

    Attributes:
        repository: Owner and name of the repository, with a slash between them.
        revision: A branch, a tag or a commit.
        path: Path of the file or folder; empty: the whole repository.
        is_folder: True if the URI ends with a slash.
    """

    repository: str
    revision: str
    path: str
    is_folder: bool = False

    @property
    def info_url(self) -> str:
        """URL of the revision's commit, below that of the hub."""
        return f"/api/models/{self.repository}/revision/{_quote_part(self.revision)}"

    def build_tree_url(self, commit: str, folder: str, *, recursive: bool) -> str:
        """Return the URL of the files of a folder, below that of the hub.

        Args:
            commit: The commit.
            folder: Path of the folder; empty: the whole repository.
            recursive: True for the files of its folders too.
        """
        below = f"/{_quote_part(folder)}" if folder else ""
        query = f"recursive={str(recursive).lower()}"
        return f"/api/models/{self.repository}/tree/{_quote_part(commit)}{below}?{query}"

    def build_file_url(self, commit: str, path: str) -> str:
        """Return the URL of a file's bytes, below that of the hub.

        Args:
            commit: The commit.
            path: Path of the file.
        """
        return f"/{self.repository}/resolve/{_quote_part(commit)}/{quote(path)}"


def parse_uri(uri: str) -> HubPath:
    """Return the file or folder of a storageUri.

    Args:
        uri: The storageUri.

    Raises:
        Failure: Unsupported, with the form of the scheme.

    >>> parse_uri("hf://owner/name")
    HubPath(repository='owner/name', revision='main', path='', is_folder=False)
    >>> parse_uri("hf://owner/name@release%2F1/onnx/")
    HubPath(repository='owner/name', revision='release/1', path='onnx', is_folder=True)
    >>> parse_uri("hf://owner/name@refs/pr/1/model.onnx").revision
    'refs/pr/1'
    """
    found = _URI.fullmatch(uri)
    if not found or not re.fullmatch(_SCHEME.pattern.replace("[:space:]", r"\s"), uri.removeprefix("hf://")):
        message = f"{uri} does not name a repository of a hub. Write {_SCHEME.form}."
        raise Failure(Reason.UNSUPPORTED, message)
    path, revision = found["path"] or "", unquote(found["revision"] or _DEFAULT)
    if revision in {".", ".."} or not revision.isprintable():
        message = f"{uri}: {revision!r} cannot be a revision. Write {_SCHEME.form}."
        raise Failure(Reason.UNSUPPORTED, message)
    return HubPath(found["repository"], revision, path.strip("/"), path.endswith("/"))


def _quote_part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")
