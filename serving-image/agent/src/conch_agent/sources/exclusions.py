"""Names that are never part of a model: files of file managers, file systems, stores and version control.

All sources apply this list to names below their root. The path in storageUri itself may have any of these names.
"""

from __future__ import annotations

import re
from typing import Final

# Names that begin with a dot are excluded as a class: .DS_Store, ._model.onnx, .gitkeep, .git, .snapshot, .zfs,
# .Trash-1000, .nfs0123, .ipynb_checkpoints, and ..data of a mounted ConfigMap.
_HIDDEN: Final = "."
_NAMES: Final = frozenset(
    name.casefold()
    for name in (
        "lost+found",  # ext4
        "aquota.user",
        "aquota.group",
        "System Volume Information",  # Windows
        "$RECYCLE.BIN",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__MACOSX",  # macOS archives
        "Icon\r",  # macOS folder icons
        "@eaDir",  # Synology
        "#recycle",
        "#snapshot",
        "~snapshot",  # NetApp
        "__pycache__",  # Python writes it when it imports
        "_SUCCESS",  # Hadoop and Spark
    )
)
_PATTERNS: Final = re.compile(r".*_\$folder\$|.*~|~\$.*", re.DOTALL)  # Hadoop's folder markers, editors, Office


def is_excluded(name: str) -> bool:
    """Return True if a file or folder of this name is never part of a model.

    Args:
        name: The name.

    >>> [name for name in ("model.onnx", ".DS_Store", "..data", "lost+found", "1_$folder$") if not is_excluded(name)]
    ['model.onnx']
    """
    return name.startswith(_HIDDEN) or name.casefold() in _NAMES or _PATTERNS.fullmatch(name) is not None


def is_excluded_path(path: str) -> bool:
    """Return True if any part of a relative path is excluded. parse_path refuses `.` and `..`.

    Args:
        path: The path.

    >>> is_excluded_path("1/.ipynb_checkpoints/model.py"), is_excluded_path("1/model.py"), is_excluded_path("../x")
    (True, False, False)
    """
    return any(is_excluded(part) for part in path.split("/") if part not in {".", ".."})
