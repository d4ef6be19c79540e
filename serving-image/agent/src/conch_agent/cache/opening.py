"""The opening of the cache, whose claim may be full, read-only, without hard links, or written by a newer agent."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from conch_agent.cache.blobs import sync_folder
from conch_agent.cache.errors import CacheUnusableError
from conch_agent.cache.space import RENEWAL_SECONDS, Folders, delete_expired
from conch_agent.cache.store import Cache
from conch_agent.settings import Settings
from conch_agent.threads import run_in_thread

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
        folders.root.mkdir(exist_ok=True)
        _check_format(folders.root / "format")
        for folder in (*folders.all, folders.pods / pod):
            folder.mkdir(exist_ok=True)
        _check_links(folders.pods / pod)
        delete_expired(folders, folders.pods / pod)
    except OSError as error:
        raise CacheUnusableError(f"{error.strerror or error} ({error.filename})") from error
    return Cache(folders, pod, settings.cache_bytes)


async def keep_lease(settings: Settings) -> None:
    """Renew the lease of the pod, until other pods have deleted its files because it was not renewed for long.

    Args:
        settings: The agent's settings.
    """
    had_files = False
    while (has_files := await run_in_thread(_renew_lease, settings)) or not had_files:
        had_files = has_files
        await asyncio.sleep(RENEWAL_SECONDS)


def _renew_lease(settings: Settings) -> bool:
    """Return False if the pod has no folder in the cache. While the claim does not answer, it is taken to have one."""
    try:
        os.utime(Folders(settings.cache / _FOLDER).pods / _name_pod(settings.pod_id))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


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
        text = file.read_text(errors="replace")[:_DIGITS].strip()
    except FileNotFoundError:
        temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        temporary.write_text(f"{_FORMAT}\n")
        temporary.replace(file)
        sync_folder(file.parent)
        return
    if text != str(_FORMAT):
        known = f"this agent knows format {_FORMAT}"
        raise CacheUnusableError(
            f"its format is {text!r}, and {known}: use the serving image that wrote it, or another claim"
        )


def _check_links(pod: Path) -> None:
    """Refuse a file system without hard links."""
    first, second = pod / ".link-1", pod / ".link-2"
    second.unlink(missing_ok=True)
    first.touch()
    try:
        os.link(first, second)
    except OSError as error:
        message = f"its file system makes no hard links ({error.strerror}): use one that does, such as NFS or CephFS"
        raise CacheUnusableError(message) from error
    finally:
        first.unlink(missing_ok=True)
    second.unlink(missing_ok=True)
