"""The content manifest: what a model is, and its files with their digests.

It is a hidden file of the folder, so no agent takes it for a file of the model, and it counts in no digest. A signature
covers it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conch.cli.model.folder import list_paths
from conch.cli.model.text import LONGEST_TEXT
from conch.cli.options import CommandError
from conch_agent.record import compute_digest
from conch_contract.verification import SIGNATURE_FILE

MANIFEST_FILE: Final = ".conch-manifest.json"
LONGEST: Final = 32 * 1024 * 1024  # bytes; a file of a model has some 200


class File(BaseModel):
    """A file of a model: its path below the folder, its size in bytes, and its SHA-256 in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ContentManifest(BaseModel):
    """A model's content.

    Attributes:
        kind: Format of the manifest.
        version: Version of the model, as its author writes it; empty: unknown.
        created: Time of the first packing.
        author: Its author; empty: unknown.
        notes: Notes of its author.
        files: Its files, without the signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["conch.dev/content/v1"] = "conch.dev/content/v1"
    version: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    created: datetime
    author: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    notes: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    files: tuple[File, ...]


@dataclass(frozen=True)
class Content:
    """The content of a folder or archive.

    Attributes:
        manifest: Its manifest; None: it has none.
        files: Its files, with the signature if there is one, and without the manifest.
    """

    manifest: ContentManifest | None
    files: tuple[File, ...]


def read_folder(folder: Path) -> Content:
    """Return the content of a folder.

    Args:
        folder: The folder.

    Raises:
        CommandError, Failure: As `list_paths`, or its manifest is none of kubectl conch.
    """
    paths = list_paths(folder)
    return Content(read_manifest(folder), tuple(hash_file(folder / path, path) for path in paths))


def hash_file(file: Path, path: PurePosixPath) -> File:
    """Return a file with its size and SHA-256.

    Args:
        file: The file.
        path: Its path below the folder of the model.
    """
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return File(path=str(path), size=os.fstat(stream.fileno()).st_size, sha256=sha256)


def build_manifest(files: tuple[File, ...], known: ContentManifest | None, texts: Mapping[str, str]) -> ContentManifest:
    """Return the manifest of files.

    Args:
        files: The files, with the signature if there is one.
        known: The manifest of the files from which these were made, whose texts stay; None: there is none.
        texts: Version, author and notes; empty: those of `known`.
    """
    kept = known.model_dump(include={"version", "author", "notes"}) if known else {}
    return ContentManifest(
        created=known.created if known else datetime.now(UTC).replace(microsecond=0),
        files=tuple(file for file in files if file.path != SIGNATURE_FILE),
        **{**kept, **{name: text for name, text in texts.items() if text}},
    )


def parse_manifest(content: bytes, place: str) -> ContentManifest:
    """Return the manifest of a file's content.

    Args:
        content: The content.
        place: The file's name in messages.

    Raises:
        CommandError: It is none.
    """
    try:
        return ContentManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise CommandError(f"{place} is no manifest of kubectl conch: {problem}; pack again") from None


def read_manifest(folder: Path) -> ContentManifest | None:
    """Return the manifest of a folder; None: it has none.

    Args:
        folder: The folder.

    Raises:
        CommandError: It is none of kubectl conch.
    """
    file = folder / MANIFEST_FILE
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return parse_manifest(stream.read(LONGEST), str(file))


def write_manifest(folder: Path, manifest: ContentManifest) -> None:
    """Write the manifest of a folder.

    Args:
        folder: The folder.
        manifest: The manifest.
    """
    (folder / MANIFEST_FILE).write_text(f"{manifest.model_dump_json(indent=2)}\n")


def build_value(content: Content) -> dict[str, Any]:
    """Return what commands print of a content: the manifest, the digest, and the files that are there.

    Args:
        content: The content.
    """
    manifest, files = content.manifest, content.files
    texts = manifest.model_dump(mode="json", exclude={"kind", "files"}) if manifest else {}
    return {
        **texts,
        "digest": compute_digest({file.path: file.sha256 for file in files}),
        "size": sum(file.size for file in files),
        "signed": any(file.path == SIGNATURE_FILE for file in files),
        "changed": find_changes(content),
        "files": [file.model_dump() for file in files],
    }


def find_changes(content: Content) -> list[str]:
    """Return the paths that differ between the manifest and the files, in sorted order; none without a manifest.

    Args:
        content: The content.
    """
    if content.manifest is None:
        return []
    ours = {file for file in content.files if file.path != SIGNATURE_FILE}
    return sorted({file.path for file in ours ^ set(content.manifest.files)})
