"""The bytes that the packages of a model may take: those of the largest model, and the free space of the disk.

Wheels are archives, and have the bounds of those: the declared size of their members is compared before they are
unpacked. Python's reader of them takes no more bytes of a member than its declared size.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import parse_wheel_filename

from conch_agent.cache import Cache
from conch_agent.disk import check_space
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import MOST_FILES

_LONGEST_DIRECTORY: Final = 16 * 1024 * 1024  # bytes of the list of a wheel's files, which is read into memory
_REMEDY: Final = "Remove packages that the model does not need"


@dataclass(frozen=True)
class SizeLimits:
    """The limits of one environment.

    Attributes:
        place: As in `read_requirements`.
        folder: A folder on the disk.
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
        cache: The cache on that disk; None: the disk is the pod's.
    """

    place: str
    folder: Path
    max_bytes: int
    cache: Cache | None

    def check_download(self, folder: Path) -> None:
        """Refuse wheels that take too much, while they are fetched: an index need not declare their size.

        Args:
            folder: The folder in which pip has them.

        Raises:
            Failure: TooLarge or DiskFull.
            CacheUnusableError: The cache has no space for them.
        """
        size = measure_folder(folder)
        what = f"{self.place}: pip has fetched {size} bytes of wheels"
        self._check_maximum(size, what)
        self._reserve(what, 1, size)

    def check_packages(self, names: Collection[str], folder: Path, beside: int) -> None:
        """Refuse packages that take too much, before they are unpacked.

        Of a package with wheels for several platforms the largest counts: it is pip that chooses.

        Args:
            names: Their names.
            folder: The folder of their wheels, which may have others.
            beside: Bytes of wheels that are on the disk for the installation alone.

        Raises:
            Failure: TooLarge, DiskFull, or EnvironmentFailed for a wheel that cannot be read.
            CacheUnusableError: The cache has no space for them.
        """
        counts, sizes = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for wheel in sorted(folder.iterdir()):
            name = parse_wheel_filename(wheel.name)[0]
            if name in sizes:
                found = self._list_sizes(wheel)
                counts[name], sizes[name] = max(counts[name], len(found)), max(sizes[name], sum(found))
        count, size = sum(counts.values()), sum(sizes.values())
        if count > MOST_FILES:
            message = f"{self.place}: the packages have {count} files; a model has up to {MOST_FILES}. {_REMEDY}."
            raise Failure(Reason.TOO_LARGE, message)
        self._check_maximum(size, f"{self.place}: the packages have {size} bytes, unpacked")
        self._reserve(f"{self.place}: the packages need {size} bytes, unpacked", size, beside)

    def _list_sizes(self, wheel: Path) -> list[int]:
        """Return the declared size of each file of a wheel, in bytes."""
        try:
            with _BoundedFile(wheel) as file, zipfile.ZipFile(file) as archive:
                return [member.file_size for member in archive.infolist()]
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            problem = error.strerror if isinstance(error, OSError) else error
            message = f"{self.place}: the wheel {wheel.name} cannot be read: {problem}. Upload it anew."
            raise Failure(Reason.ENVIRONMENT_FAILED, message) from None

    def _check_maximum(self, size: int, what: str) -> None:
        if self.max_bytes and size > self.max_bytes:
            message = (
                f"{what}; this installation takes models up to {self.max_bytes}. {_REMEDY}, or raise"
                " models.maxModelBytes of the chart."
            )
            raise Failure(Reason.TOO_LARGE, message)

    def _reserve(self, what: str, size: int, beside: int) -> None:
        if self.cache:
            self.cache.make_space(size, beside)
        else:
            check_space(what, size, self.folder)


class _BoundedFile(io.FileIO):
    """A file of which zipfile reads the directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size and size > _LONGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of files has {size} bytes; up to {_LONGEST_DIRECTORY} are read")
        return super().read(-1 if size is None else size) or b""


def measure_folder(folder: Path) -> int:
    """Return the size in bytes of the files in a folder, which others may delete meanwhile.

    Args:
        folder: The folder.
    """
    return sum(_measure_file(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names)


def _measure_file(file: Path) -> int:
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0
