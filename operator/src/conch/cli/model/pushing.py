"""The upload of a folder or an archive to the target of its scheme."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import Final

from conch.cli.model.manifest import Content, hash_file
from conch.cli.model.progress import show_progress
from conch.cli.model.push import http, registry, store
from conch.cli.model.push.plan import Outcome, Upload, plan_upload
from conch.cli.options import CommandError

_STORE: Final = "s3"
_HTTP: Final = ("http", "https")


def push_source(source: Path, target: str, content: Content) -> Outcome:
    """Upload a folder or an archive.

    Args:
        source: The folder or archive.
        target: The URI.
        content: The content of the source, which has to be the same during the upload.

    Raises:
        CommandError: The target takes no such source, or refuses it.
        Failure: The target cannot be reached.
    """
    scheme = target.partition("://")[0]
    if scheme in _HTTP:
        return _push_file(source, target)
    if scheme not in (_STORE, "oci"):
        raise CommandError(f"{target!r}: expected s3://, oci://, https:// or http://")
    if not source.is_dir():
        raise CommandError(f"{source} is a file; push the folder to {scheme}://, and archives to https://")
    upload = plan_upload(source, content.files)
    with show_progress(upload.size) as advance:
        if scheme == "oci":
            return asyncio.run(registry.push(upload, content.manifest, target, advance))
        return asyncio.run(store.push(upload, target, advance))


def _push_file(source: Path, target: str) -> Outcome:
    if source.is_dir():
        raise CommandError(f"{source} is a folder, and an agent reads one file of a URL; pack it into a .tar.zst file")
    file = hash_file(source, PurePosixPath(source.name))
    with show_progress(file.size) as advance:
        return asyncio.run(http.push(Upload(source.parent, (file,)), target, advance))
