"""A folder or an archive of a model's files with their manifest."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final

from conch.cli.model.folder import list_paths, make_output, refuse_output_inside
from conch.cli.model.manifest import (
    LONGEST,
    MANIFEST_FILE,
    Content,
    ContentManifest,
    File,
    parse_manifest,
    write_manifest,
)
from conch.cli.options import CommandError
from conch_agent.archives.stream import Stream
from conch_agent.archives.tar import Kind, read_members
from conch_agent.archives.zstandard import zstd
from conch_agent.sources.base import MOST_FILES, parse_path
from conch_agent.sources.exclusions import is_excluded_path

ARCHIVE: Final = ".tar.zst"


def is_archive(path: Path) -> bool:
    """Return True for the name of an archive that `pack` writes.

    Args:
        path: The path.
    """
    return path.name.endswith(ARCHIVE)


def copy_folder(source: Path, target: Path, manifest: ContentManifest) -> None:
    """Copy a model's files and its manifest.

    Args:
        source: The folder.
        target: The folder to make, which is absent or empty.
        manifest: The manifest.

    Raises:
        CommandError: The target has files already.
    """
    with make_output(target, source):
        for path in list_paths(source):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, target / path, follow_symlinks=False)
        write_manifest(target, manifest)


def write_archive(source: Path, target: Path, manifest: ContentManifest) -> None:
    """Write a model's files and its manifest, which is the first member. Equal contents have equal archives.

    Args:
        source: The folder.
        target: The file, which is written under another name and renamed.
        manifest: The manifest.

    Raises:
        CommandError: The target is a folder, or in the source.
    """
    refuse_output_inside(target, source)
    if target.is_dir():
        raise CommandError(f"{target} is a folder; name another file, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    try:
        with (
            zstd.open(temporary, "wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            content = f"{manifest.model_dump_json(indent=2)}\n".encode()
            first = tarfile.TarInfo(MANIFEST_FILE)
            first.size = len(content)
            tar.addfile(first, BytesIO(content))
            for path in list_paths(source):
                member = tarfile.TarInfo(str(path))
                with (source / path).open("rb") as file:
                    member.size = os.fstat(file.fileno()).st_size
                    tar.addfile(member, file)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_archive(archive: Path) -> Content:
    """Return the content of an archive, which is read and not unpacked.

    Args:
        archive: The archive.

    Raises:
        CommandError: It has other members than regular files and folders, or too many.
        Failure: Unsupported for what is no archive, or UnsafePath for a name that no agent fetches.
    """
    manifest, files = None, []
    with archive.open("rb", buffering=0) as opened:
        for member, content in read_members(Stream(opened, str(archive))):
            name = member.name.removeprefix("./")
            if member.kind == Kind.FOLDER:
                continue
            if member.kind != Kind.FILE:
                raise CommandError(f"{archive}: {name} is {member.kind}; pack regular files")
            if name == MANIFEST_FILE and member.size <= LONGEST:
                manifest = parse_manifest(b"".join(content), f"{archive}: {MANIFEST_FILE}")
                continue
            digest = _hash_pieces(content)
            if not is_excluded_path(name):
                files.append(File(path=str(parse_path(name, str(archive))), size=member.size, sha256=digest))
            if len(files) > MOST_FILES:
                raise CommandError(f"{archive} has over {MOST_FILES} files, and an agent refuses it; pack fewer")
    return Content(manifest, tuple(sorted(files, key=lambda file: file.path)))


def _hash_pieces(content: Iterator[memoryview]) -> str:
    state = sha256()
    for piece in content:
        state.update(piece)
    return state.hexdigest()
