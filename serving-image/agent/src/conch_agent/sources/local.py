"""Files on a mounted file system."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Entry, Item, Listing, build_listing, parse_path
from conch_agent.sources.exclusions import is_excluded
from conch_agent.sources.listing_limit import ListingLimit
from conch_agent.threads import run_in_thread

CHUNK: Final = 4 * 1024 * 1024


class LocalSource:
    """A file, or all files below a folder."""

    def __init__(self, uri: str, root: Path, boundary: Path) -> None:
        """Create the source.

        Args:
            uri: The storageUri, with which messages begin.
            root: The file or folder.
            boundary: The folder that symbolic links may not leave: the claim's mount, or the root itself.
        """
        self.uri = uri
        self._root = root
        self._boundary = boundary

    async def list_files(self) -> Listing:
        """Return the files, as in Source. Links that leave the boundary are refused."""
        return await run_in_thread(self._walk)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the file's chunks, as in Source."""
        try:
            opened = await run_in_thread(_open, Path(item.key))
        except FileNotFoundError as error:
            raise self._build_changed(item) from error
        except OSError as error:
            raise self._build_denied(error) from error
        with opened as stream:
            if _build_tag(os.fstat(stream.fileno())) != item.tag:
                raise self._build_changed(item)
            stream.seek(offset)
            while chunk := await run_in_thread(stream.read, CHUNK):
                yield chunk

    def _build_changed(self, item: Item) -> Failure:
        return Failure(Reason.CHANGED, f"{self.uri}: {item.path} changed while it was read; the agent reads it again.")

    def find_local(self, item: Item) -> Path | None:
        """Return the path of the file, as in Source."""
        return Path(item.key)

    def _walk(self) -> Listing:
        try:
            root = self._root.resolve(strict=True)
            boundary = self._boundary.resolve(strict=True)
        except FileNotFoundError:
            raise Failure(
                Reason.NOT_FOUND, f"{self.uri}: there is no such file or folder. Correct storageUri."
            ) from None
        except OSError as error:
            raise self._build_denied(error) from error
        self._check_inside(root, boundary)
        if root.is_file():
            status = root.stat()
            return Listing((Item(parse_path(root.name, self.uri), status.st_size, _build_tag(status), str(root)),))
        found: list[Entry] = []
        limit = ListingLimit(self.uri)
        for folder, folders, files in os.walk(root, onerror=self._raise_denied):
            folders[:] = [name for name in folders if not is_excluded(name)]  # these are not opened
            files += [name for name in folders if (Path(folder) / name).is_symlink()]
            included = [Path(folder) / name for name in files if not is_excluded(name)]
            limit.add(len(included))
            found += [self._read_entry(path, root, boundary) for path in included]
        return build_listing(found, self.uri)

    def _read_entry(self, path: Path, root: Path, boundary: Path) -> Entry:
        relative = parse_path(path.relative_to(root).as_posix(), self.uri)
        try:
            real = path.resolve(strict=True)
        except (FileNotFoundError, RuntimeError):
            raise Failure(Reason.NOT_FOUND, f"{self.uri}: the link {relative} points at nothing.") from None
        self._check_inside(real, boundary)
        if real.is_dir():
            message = f"{self.uri}: {relative} is a link to a folder; put the folder itself there."
            raise Failure(Reason.UNSAFE_PATH, message)
        if not real.is_file():
            raise Failure(Reason.UNSAFE_PATH, f"{self.uri}: {relative} is no regular file; remove it.")
        status = real.stat()
        return Entry(str(relative), status.st_size, _build_tag(status), str(real))

    def _check_inside(self, real: Path, boundary: Path) -> None:
        if not real.is_relative_to(boundary):
            message = f"{self.uri} leads to {real}, outside of its root: links may not leave it."
            raise Failure(Reason.UNSAFE_PATH, message)

    def _raise_denied(self, error: OSError) -> None:
        raise self._build_denied(error)

    def _build_denied(self, error: OSError) -> Failure:
        reason = Reason.ACCESS_DENIED if isinstance(error, PermissionError) else Reason.FETCH_FAILED
        return Failure(
            reason, f"{self.uri}: {error.strerror or error} ({error.filename}). Is it readable for uid 1000?"
        )


def _build_tag(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _open(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202  a binary stream
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
