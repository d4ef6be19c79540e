"""What a folder, an archive or a URI has: its manifest, its files, and the digest that a status shows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conch.cli.model.environment import read_environment
from conch.cli.model.manifest import MANIFEST_FILE, Content, build_value, parse_manifest, read_folder
from conch.cli.model.packing import ARCHIVE, is_archive, read_archive
from conch.cli.options import CommandError
from conch_agent.digests import read_chunks
from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Listing


def read_content(path: Path) -> Content:
    """Return the content of a folder or an archive.

    Args:
        path: The folder or archive.

    Raises:
        CommandError, Failure: It cannot be read, or has files that no agent fetches.
    """
    if path.is_file() and not is_archive(path):
        raise CommandError(
            f"{path} is a file; expected a folder, or an archive of pack, whose name ends with {ARCHIVE}"
        )
    return read_archive(path) if path.is_file() else read_folder(path)


def inspect_path(path: Path) -> dict[str, Any]:
    """Return what commands print of a folder or an archive.

    Args:
        path: The folder or archive.

    Raises:
        CommandError, Failure: As `read_content`.
    """
    return {"source": str(path), **build_value(read_content(path))}


async def inspect_uri(uri: str) -> dict[str, Any]:
    """Return what a storageUri has, as an agent lists it. Files are not fetched, but for the manifest.

    Credentials are those of the environment, by the names that the keys of a storage Secret have.

    Args:
        uri: The storageUri.

    Raises:
        Failure: It cannot be read.
        CommandError: Its manifest is none of kubectl conch.
    """
    with tempfile.TemporaryDirectory() as root:
        settings = Settings(root=Path(root))
        _write_secret(settings.storage, read_environment(uri))
        listing = await open_source(uri, settings).list_files()
        files = [{"path": str(item.path), "size": item.size, "digest": item.digest or None} for item in listing.stored]
        found = await _read_remote_manifest(uri, settings)
    texts = found.model_dump(mode="json", exclude={"kind", "files"}) if found else {}
    return {"source": uri, **texts, "size": listing.total, "files": files}


async def _read_remote_manifest(uri: str, settings: Settings) -> Any:
    """Return the manifest below a URI; None: there is none, or the URI is a file."""
    place = f"{uri.rstrip('/')}/{MANIFEST_FILE}"
    try:
        source = open_source(place, settings)
        listing = await source.list_files()
        fetched = await Fetch(source, settings.downloads).run(Listing(listing.items[:1]))
    except Failure as failure:
        if failure.reason in {Reason.NOT_FOUND, Reason.EMPTY, Reason.UNSUPPORTED, Reason.FETCH_FAILED}:
            return None
        raise
    return parse_manifest(b"".join(read_chunks(fetched.files / listing.items[0].path)), place)


def _write_secret(folder: Path, values: Mapping[str, str]) -> None:
    """Write credentials as the kubelet mounts a Secret; none: there is no Secret."""
    if values:
        folder.mkdir(parents=True)
    for name, value in values.items():
        (folder / name).write_text(value)
