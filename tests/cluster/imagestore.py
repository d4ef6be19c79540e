"""What a node's containerd holds of images, kept for the nodes of later clusters.

To import the images of the tests costs a node 50 s of processor time; to link files that never change costs one.
containerd must not run meanwhile. Its databases are copied, since it writes them in place.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster import binaries
from tests.cluster.paths import cache_dir
from tests.cluster.shell import run

_SCRATCH: Final = ".kept-"


def seed(root: Path, snapshotter: str) -> None:
    """Give a node that has no images what was kept; does nothing where nothing was, or it is on another disk.

    Args:
        root: containerd's folder of that name, of a node whose containerd does not run.
        snapshotter: the name of its snapshotter; each keeps images in its own way.
    """
    kept = _kept(snapshotter)
    with _lock():
        if not root.exists() and kept.exists() and _on_one_disk(kept, root.parent):
            _link(kept, root)


def keep(root: Path, snapshotter: str) -> None:
    """Keep a node's images in place of what was kept before; the arguments are those of `seed`.

    No container may have been made yet: it would come back with the images.
    """
    kept = _kept(snapshotter)
    with _lock():
        if not _on_one_disk(kept.parent, root):
            return
        for remains in kept.parent.glob(f"{_SCRATCH}*"):  # of a run that was cut short
            shutil.rmtree(remains)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=kept.parent))
        try:
            _link(root, scratch / "new")
            for old in kept.parent.glob("kept-*"):  # also of another containerd, which cannot read what is newer
                old.rename(scratch / old.name)
            (scratch / "new").rename(kept)
        finally:
            shutil.rmtree(scratch)


def _kept(snapshotter: str) -> Path:
    version = binaries.version(binaries.MODULES["containerd"])
    return cache_dir() / "images" / f"kept-{snapshotter}-{version}"


@contextmanager
def _lock() -> Iterator[None]:
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".kept.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _on_one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _link(source: Path, target: Path) -> None:
    """Copy a folder: owners, modes and attributes of its folders, and each file as a link to the same content.

    All or nothing: a containerd that finds a database which is still a link would write into the source's.
    """
    scratch = target.with_name(f".{target.name}.linked")
    shutil.rmtree(scratch, ignore_errors=True)
    run(["cp", "--archive", "--link", source, scratch])
    for database in scratch.glob("*/*.db"):
        copy = database.with_suffix(".copy")
        shutil.copy2(database, copy)
        copy.rename(database)
    scratch.rename(target)
