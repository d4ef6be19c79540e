"""The exception of a cache that a pod has to do without."""

from __future__ import annotations

from typing import Self


class CacheUnusableError(Exception):
    """The cache cannot take the files of a model: a sentence without a full stop. The pod fetches them by itself."""

    @classmethod
    def from_os_error(cls, error: OSError) -> Self:
        """Return the exception for an error of the claim's file system.

        Args:
            error: The error.
        """
        return cls(f"{error.strerror or error} ({error.filename})" if error.filename else f"{error.strerror or error}")
