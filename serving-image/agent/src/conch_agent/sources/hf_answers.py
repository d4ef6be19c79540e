"""The JSON answers of a hub's API, as types."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, Discriminator, FailFast, Field, Tag, TypeAdapter, ValidationError

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import describe_invalid
from conch_agent.sources.base import Entry

_Size = Annotated[int, Field(ge=0, lt=2**63)]
_Id = Annotated[str, Field(min_length=1, max_length=128)]
MOST_ENTRIES: Final = 10_000  # of a page; Hugging Face's has 1,000 at most
_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class RevisionInfo(BaseModel):
    """A revision of a repository. `sha` is its commit."""

    sha: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]


class _Lfs(BaseModel):
    """A file in Git LFS. `oid` is the SHA-256 of its content, and `size` its size in bytes."""

    oid: _Id
    size: _Size


class TreeFile(BaseModel):
    """A file of a revision. `oid` is its id as a Git blob, which for a file in Git LFS is that of its pointer.

    Hubs other than Hugging Face's may have ids of another form, from which no digest follows.
    """

    type: Literal["file"]
    path: Annotated[str, Field(max_length=4096)]
    oid: _Id
    size: _Size
    lfs: _Lfs | None = None

    @property
    def digest(self) -> str:
        """The digest of the content, as in `conch_agent.digests`; empty: the hub declares none."""
        if self.lfs:
            return f"sha256:{self.lfs.oid}" if _SHA256.fullmatch(self.lfs.oid) else ""
        return f"git:{self.oid}" if _SHA1.fullmatch(self.oid) else ""

    def to_entry(self, name: str, commit: str) -> Entry:
        """Return the entry of the file in a listing.

        Args:
            name: Its path below the root of the storageUri.
            commit: The commit of the listing.
        """
        tag, size = (self.lfs.oid, self.lfs.size) if self.lfs else (self.oid, self.size)
        return Entry(name, size, tag, self.path, commit, self.digest)


class TreeFolder(BaseModel):
    """A folder of a revision, or what is no file in a later version of the API."""

    type: Annotated[str, Field(max_length=64)]


def _select_kind(entry: object) -> str:
    return "file" if isinstance(entry, dict) and entry.get("type") == "file" else "other"


_Entry = Annotated[Annotated[TreeFile, Tag("file")] | Annotated[TreeFolder, Tag("other")], Discriminator(_select_kind)]

REVISION: Final = TypeAdapter(RevisionInfo)
TREE: Final = TypeAdapter(Annotated[list[_Entry], Field(max_length=MOST_ENTRIES), FailFast()])
_T = TypeVar("_T")


def parse_answer(body: bytes, form: TypeAdapter[_T], uri: str, endpoint: str) -> _T:
    """Return the value of an answer.

    Args:
        body: The answer's body.
        form: REVISION or TREE.
        uri: The storageUri, with which the message begins.
        endpoint: URL of the hub.

    Raises:
        Failure: FetchFailed for an answer that is no JSON, or JSON of another form.
    """
    try:
        return form.validate_json(body)
    except ValidationError as error:
        problem = describe_invalid(body, error)
    message = (
        f"{uri}: the server at {endpoint} does not answer as a hub's API does ({problem}). Write the"
        " address of a hub as HF_ENDPOINT into the storage Secret, or correct that hub."
    )
    raise Failure(Reason.FETCH_FAILED, message)
