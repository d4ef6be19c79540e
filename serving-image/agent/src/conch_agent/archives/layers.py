"""Which members of an image's layers are files of the image.

Layers are read from the last to the first, so that nothing is unpacked that a later layer replaces or removes
(OCI image specification 1.1, "Layer Filesystem Changeset").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_RESERVED: Final = ".wh..wh."  # other names of AUFS, which are no files of an image


@dataclass
class Changes:
    """What layers have, and what they hide in those before them.

    Attributes:
        covered: Paths that they have as other than folders, or remove: in earlier layers neither these nor what is
            below them is seen.
        emptied: Folders that hide what earlier layers have below them.
        folders: Folders that they have. A file of that path in an earlier layer is not seen.
    """

    covered: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        """Return the number of paths that are held in memory."""
        return len(self.covered) + len(self.emptied) + len(self.folders)

    def add(self, name: str, *, is_folder: bool) -> None:
        """Note a member of a layer, which is no whiteout.

        Args:
            name: Its path.
            is_folder: True if it is a folder.
        """
        (self.folders if is_folder else self.covered).add(name)
        self.folders.update(list_folders(name))

    def add_whiteout(self, name: str) -> bool:
        """Note a whiteout; return False for a member that is none.

        Args:
            name: Its path.
        """
        folder, slash, last = name.rpartition("/")
        if not last.startswith(_WHITEOUT):
            return False
        if last == _OPAQUE:
            self.emptied.add(folder)
        elif not last.startswith(_RESERVED):
            self.covered.add(f"{folder}{slash}{last.removeprefix(_WHITEOUT)}")
        return True

    def hide(self, name: str, *, is_folder: bool) -> bool:
        """Return True if a member of an earlier layer is no part of the image.

        Args:
            name: Its path.
            is_folder: True if it is a folder.
        """
        above = (*list_folders(name), "")
        return (
            name in self.covered
            or (name in self.folders and not is_folder)
            or not self.covered.isdisjoint(above)
            or not self.emptied.isdisjoint(above)
        )

    def merge(self, earlier: Changes) -> None:
        """Add the changes of the layer before.

        Args:
            earlier: Its changes.
        """
        self.covered |= earlier.covered
        self.emptied |= earlier.emptied
        self.folders |= earlier.folders


def list_folders(name: str) -> Iterator[str]:
    """Yield the folders that lead to a path, without the root.

    Args:
        name: The path.

    >>> list(list_folders("a/b/c"))
    ['a/b', 'a']
    """
    while (end := name.rfind("/")) > 0:
        name = name[:end]
        yield name
