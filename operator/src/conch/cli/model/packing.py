"""A folder or an archive of a model's files with their manifest."""

from __future__ import annotations

import os
import shutil
import tarfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Final

from conch.cli.model.folder import list_paths, make_output
from conch.cli.model.manifest import (
    LONGEST,
    MANIFEST_FILE,
    ContentManifest,
    File,
    parse_manifest,
    write_manifest,
)
from conch.cli.options import CommandError
from conch_agent.archives.zstandard import zstd
from conch_agent.sources.base import MOST_FILES, parse_path
from conch_agent.sources.exclusions import is_excluded_path

ARCHIVE: Final = ".tar.zst"
_CHUNK: Final = 1024 * 1024


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
    make_output(target)
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
    """
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


def read_archive(archive: Path) -> tuple[ContentManifest | None, tuple[File, ...]]:
    """Return the manifest of an archive, and its files, which are read and not unpacked.

    Args:
        archive: The archive.

    Raises:
        CommandError: It is no archive of `pack`, or has other members than regular files.
        Failure: UnsafePath for a name that no agent fetches.
    """
    manifest, files = None, []
    try:
        with zstd.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isfile() or (file := tar.extractfile(member)) is None:
                    raise CommandError(f"{archive}: {member.name} is a link or a special file; pack regular files")
                if member.name == MANIFEST_FILE:
                    manifest = parse_manifest(file.read(LONGEST), f"{archive}: {MANIFEST_FILE}")
                elif not is_excluded_path(member.name):
                    files.append(_hash_member(str(parse_path(member.name, str(archive))), member.size, file))
                if len(files) > MOST_FILES:
                    raise CommandError(f"{archive} has over {MOST_FILES} files, and an agent refuses it; pack fewer")
    except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
        raise CommandError(f"{archive} is no archive of kubectl conch model pack: {error}; pack again") from None
    return manifest, tuple(sorted(files, key=lambda file: file.path))


def _hash_member(path: str, size: int, file: IO[bytes]) -> File:
    state = sha256()
    while chunk := file.read(_CHUNK):
        state.update(chunk)
    return File(path=path, size=size, sha256=state.hexdigest())
