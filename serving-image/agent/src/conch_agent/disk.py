"""The space on the models volume, which is on the disk of the pod's node."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conch_agent.reasons import Failure, Reason

RESERVE: Final = 16 * 1024 * 1024  # bytes that stay free for records and folders
_REMEDY: Final = (
    "The volume is on the disk of the node: request ephemeral-storage in spec.predictor.resources, so that the pod gets"
    " a node with more space, or serve a smaller model"
)


def check_space(what: str, needed: int, folder: Path) -> None:
    """Refuse files that do not fit on the disk beside the reserve.

    Args:
        what: Beginning of the message, such as `s3://models/m needs 7 more bytes`.
        needed: Bytes that will be written.
        folder: A folder on the disk.

    Raises:
        Failure: DiskFull.
    """
    free = shutil.disk_usage(folder).free
    if needed > max(0, free - RESERVE):
        message = f"{what}, and the models volume has {free} free, of which the agent leaves {RESERVE}. {_REMEDY}."
        raise Failure(Reason.DISK_FULL, message)


@contextmanager
def translate_full_disk(uri: str) -> Iterator[None]:
    """Have a write for which the disk has no space as a failure of the model.

    Args:
        uri: The storageUri, with which the message begins.

    Raises:
        Failure: DiskFull.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise Failure(Reason.DISK_FULL, f"{uri}: the models volume is full. {_REMEDY}.") from error
