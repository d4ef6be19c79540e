"""The exception of a cache that a pod has to do without."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

_FREE: Final = "free space on the claim, or use a larger one"
_WRITE: Final = "let the uid of the pod write to the claim"
_REMEDIES: Final[Mapping[int, str]] = MappingProxyType(
    {errno.ENOSPC: _FREE, errno.EDQUOT: _FREE, errno.EROFS: _WRITE, errno.EACCES: _WRITE, errno.EPERM: _WRITE}
)


class CacheUnusableError(Exception):
    """The cache cannot take the files of a model: a sentence without a full stop. The pod fetches them by itself."""

    @classmethod
    def from_os_error(cls, error: OSError) -> Self:
        """Return the exception for an error of the claim's file system.

        Args:
            error: The error.
        """
        cause = f"{error.strerror or error} ({error.filename})" if error.filename else f"{error.strerror or error}"
        return cls(f"{cause}: {_REMEDIES.get(error.errno or 0, 'check the storage of the claim')}")
