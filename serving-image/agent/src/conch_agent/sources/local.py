"""Files on a mounted file system."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Buffer, Found, Item, Listing, build_listing, refuse_endless, safe_path
from conch_agent.sources.exclusions import is_excluded
from conch_agent.threads import in_thread

CHUNK: Final = 4 * 1024 * 1024


class LocalSource:
    """A file, or all files below a folder.

    `fence` is the folder that nothing may leave, not even by a symbolic link: the claim's mount, or the path itself.
    """

    def __init__(self, uri: str, root: Path, fence: Path) -> None:
        self.uri = uri
        self._root = root
        self._fence = fence

    async def listing(self) -> Listing:
        """Return the files; links that stay inside are followed, others are refused."""
        return await in_thread(self._walk)

    async def read(self, item: Item, offset: int) -> AsyncGenerator[Buffer, None]:
        """Yield the file's chunks."""
        try:
            opened = await in_thread(_open, Path(item.key))
        except FileNotFoundError as error:
            raise self._changed(item) from error
        except OSError as error:
            raise self._denied(error) from error
        with opened as stream:
            if _tag(os.fstat(stream.fileno())) != item.tag:
                raise self._changed(item)
            stream.seek(offset)
            while chunk := await in_thread(stream.read, CHUNK):
                yield chunk

    def _changed(self, item: Item) -> Failure:
        return Failure(Reason.CHANGED, f"{self.uri}: {item.path} changed while it was read; starting over.")

    def local(self, item: Item) -> Path | None:
        """Return the file."""
        return Path(item.key)

    def _walk(self) -> Listing:
        try:
            root = self._root.resolve(strict=True)
            fence = self._fence.resolve(strict=True)
        except FileNotFoundError:
            raise Failure(
                Reason.NOT_FOUND, f"{self.uri}: there is no such file or folder. Correct storageUri."
            ) from None
        except OSError as error:
            raise self._denied(error) from error
        self._inside(root, fence)
        if root.is_file():
            facts = root.stat()
            return Listing((Item(safe_path(root.name, self.uri), facts.st_size, _tag(facts), str(root)),))
        found: list[Found] = []
        for folder, folders, files in os.walk(root, onerror=self._stop):
            folders[:] = [name for name in folders if not is_excluded(name)]  # not even opened
            files += [name for name in folders if (Path(folder) / name).is_symlink()]
            found += [self._entry(Path(folder) / name, root, fence) for name in files if not is_excluded(name)]
            refuse_endless(len(found), self.uri)
        return build_listing(found, self.uri)

    def _entry(self, path: Path, root: Path, fence: Path) -> Found:
        relative = safe_path(path.relative_to(root).as_posix(), self.uri)
        try:
            real = path.resolve(strict=True)
        except (FileNotFoundError, RuntimeError):
            raise Failure(Reason.NOT_FOUND, f"{self.uri}: the link {relative} points at nothing.") from None
        self._inside(real, fence)
        if real.is_dir():
            message = f"{self.uri}: {relative} is a link to a folder; put the folder itself there."
            raise Failure(Reason.UNSAFE_PATH, message)
        if not real.is_file():
            raise Failure(Reason.UNSAFE_PATH, f"{self.uri}: {relative} is no regular file; remove it.")
        facts = real.stat()
        return Found(str(relative), facts.st_size, _tag(facts), str(real))

    def _inside(self, real: Path, fence: Path) -> None:
        if not real.is_relative_to(fence):
            message = f"{self.uri} leads to {real}, outside of its root: links may not leave it."
            raise Failure(Reason.UNSAFE_PATH, message)

    def _stop(self, error: OSError) -> None:
        raise self._denied(error)

    def _denied(self, error: OSError) -> Failure:
        reason = Reason.ACCESS_DENIED if isinstance(error, PermissionError) else Reason.FETCH_FAILED
        return Failure(
            reason, f"{self.uri}: {error.strerror or error} ({error.filename}). Is it readable for uid 1000?"
        )


def _tag(facts: os.stat_result) -> str:
    return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"


def _open(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202  a binary stream
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
