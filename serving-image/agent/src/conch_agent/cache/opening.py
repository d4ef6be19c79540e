"""The opening of the cache, whose claim may be full, read-only, without hard links, or written by a newer agent."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from conch_agent.cache import lease
from conch_agent.cache.blobs import sync_folder
from conch_agent.cache.errors import CacheUnusableError
from conch_agent.cache.space import Folders, delete_expired
from conch_agent.cache.store import Cache
from conch_agent.record import read_text, replace_text
from conch_agent.settings import Settings

_FORMAT: Final = 1
_FOLDER: Final = ".conch-cache"
_DIGITS: Final = 9


def open_cache(settings: Settings) -> Cache | None:
    """Return the cache, and make its folders if the claim is new; None: the pod has no claim for it.

    Args:
        settings: The agent's settings.

    Raises:
        CacheUnusableError: The pod has to do without it.
    """
    claim = settings.cache
    if not claim.exists():
        return None
    pod = _name_pod(settings.pod_id)
    folders = Folders(claim / _FOLDER)
    try:
        _make_folder(folders.root)
        _check_format(folders.root / "format")
        for folder in (*folders.all, folders.pods / pod):
            _make_folder(folder)
        _check_links(folders.pods / pod)
        delete_expired(folders, folders.pods / pod)
    except OSError as error:
        raise CacheUnusableError.from_os_error(error) from error
    return Cache(folders, pod, settings.cache_bytes)


async def keep_lease(settings: Settings) -> None:
    """Hold the lease of the pod, until other pods have deleted its files because it was not renewed for long.

    Args:
        settings: The agent's settings.
    """

    def find_folder() -> Path:
        return Folders(settings.cache / _FOLDER).pods / settings.pod_id.read_text()

    await lease.keep_lease(find_folder)


def _make_folder(folder: Path) -> None:
    """Make a folder, unless it is there; refuse one that is a link to files which are not those of the cache."""
    if folder.is_symlink():
        raise CacheUnusableError(f"{folder} is a symbolic link: delete it")
    folder.mkdir(exist_ok=True)


def _name_pod(file: Path) -> str:
    """Return the pod's name in the cache, which is drawn once: pods of several clusters may share a claim."""
    if not file.exists():
        temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        temporary.write_text(secrets.token_hex(16))
        with suppress(FileExistsError):  # of several models one is first
            os.link(temporary, file)
        temporary.unlink()
    return file.read_text()


def _check_format(file: Path) -> None:
    """Refuse a layout that this agent does not know; write the format into a new cache."""
    try:
        text = read_text(file, _DIGITS).strip()
    except ValueError as error:
        raise CacheUnusableError(f"its format cannot be read: {error}. Use another claim") from error
    except FileNotFoundError:
        temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        replace_text(file, temporary, f"{_FORMAT}\n")
        sync_folder(file.parent)
        return
    if text != str(_FORMAT):
        known = f"this agent knows format {_FORMAT}"
        raise CacheUnusableError(
            f"its format is {text!r}, and {known}: use the serving image that wrote it, or another claim"
        )


def _check_links(pod: Path) -> None:
    """Refuse a file system without hard links. Several models of a pod may be at it."""
    first = pod / f".link-{secrets.token_hex(8)}"
    second = first.with_name(f"{first.name}-2")
    first.touch()
    try:
        os.link(first, second)
    except OSError as error:
        message = f"its file system makes no hard links ({error.strerror}): use one that does, such as NFS or CephFS"
        raise CacheUnusableError(message) from error
    finally:
        first.unlink(missing_ok=True)
    second.unlink(missing_ok=True)
