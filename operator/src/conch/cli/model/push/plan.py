"""What is uploaded, and what an upload reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from conch.cli.model.manifest import MANIFEST_FILE, File, hash_file
from conch.cli.options import CommandError
from conch_contract.verification import SIGNATURE_FILE

Advance = Callable[[int], None]
"""Counts bytes that are sent, or that the target has."""


@dataclass(frozen=True)
class Upload:
    """A model to upload.

    Attributes:
        folder: The folder of its files.
        files: The files: the manifest, the model's, and the signature last, so that no signed name comes too early.
    """

    folder: Path
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files)


@dataclass
class Outcome:
    """What an upload has done.

    Attributes:
        uri: The storageUri of what was uploaded.
        sent: Paths that were sent.
        present: Paths that the target had.
    """

    uri: str
    sent: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)

    def to_value(self) -> dict[str, Any]:
        """Return what the command prints."""
        return {"uri": self.uri, "sent": sorted(self.sent), "present": sorted(self.present)}


def plan_upload(folder: Path, files: tuple[File, ...]) -> Upload:
    """Return the upload of a folder.

    Args:
        folder: The folder.
        files: Its files, without the manifest.
    """
    manifest = folder / MANIFEST_FILE
    own = [hash_file(manifest, PurePosixPath(MANIFEST_FILE))] if manifest.is_file() else []
    ordered = sorted(files, key=lambda file: (file.path == SIGNATURE_FILE, file.path))
    return Upload(folder, (*own, *ordered))


def find_change(error: BaseException) -> CommandError | None:
    """Return the error of `read_chunks` for which a client has ended a request; None: it ended for another reason.

    Args:
        error: The error of the client.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, CommandError):
        cause = cause.__cause__ or cause.__context__
    return cause


def read_chunks(upload: Upload, file: File, advance: Advance, size: int = 4 * 1024 * 1024) -> Iterator[bytes]:
    """Yield the bytes of a file, and count them. Its last bytes are those of the digest under which it is uploaded.

    Args:
        upload: The upload.
        file: The file.
        advance: Counts the bytes.
        size: Size of a chunk in bytes.

    Raises:
        CommandError: The file has changed since the upload was planned.
    """
    state, count = hashlib.sha256(), 0
    with (upload.folder / file.path).open("rb") as stream:
        while chunk := stream.read(size):
            state.update(chunk)
            count += len(chunk)
            if count > file.size or (count == file.size and state.hexdigest() != file.sha256):
                break
            yield chunk
            advance(len(chunk))
    if count != file.size or state.hexdigest() != file.sha256:
        raise CommandError(f"{upload.folder / file.path} changed while it was uploaded; run the command again")
