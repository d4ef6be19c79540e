"""The cgroups of a cluster's pods, in whichever way the machine has mounted them.

The tool makes sub-cgroups of its own and removes them again; mounts and existing cgroups stay as they are.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.cluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
_WEIGHTS = {"cpu.shares": 16384, "cpu.weight": 1600}
"""By the versions of cgroups: sixteen times the default. All pods of all nodes would otherwise get the processor time
of one of the machine's many processes: Triton's stubs then miss their health check, and it crashes when it restarts
them.
"""


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Return the mounted hierarchies: the one of cgroup v2, or one per controller of cgroup v1.

    Controllers that are mounted together appear under several names by symbolic link: each counts once.
    """
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted({path.resolve() for path in root.iterdir() if (path / "cgroup.procs").exists()})


def create(name: str, root: Path = ROOT) -> None:
    """Create the cgroup ``name`` (a relative path) in every hierarchy, ready to hold the kubelet's own below it."""
    for hierarchy in hierarchies(root):
        parent = hierarchy
        for part in Path(name).parts:
            child = parent / part
            child.mkdir(exist_ok=True)
            _inherit_cpuset(parent, child)
            _delegate(parent)
            parent = child
        _delegate(parent)
        _weigh(hierarchy / Path(name).parts[0])


def _inherit_cpuset(parent: Path, child: Path) -> None:
    """In cgroup v1 a new cpuset is empty and takes no process until it names processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (parent / name).exists() and not (child / name).read_text().strip():
            (child / name).write_text((parent / name).read_text())


def _delegate(cgroup: Path) -> None:
    """In cgroup v2 children have only the controllers that their parent hands down."""
    controllers = cgroup / "cgroup.controllers"
    if not (cgroup / "cgroup.subtree_control").exists() or not controllers.exists():
        return
    for controller in controllers.read_text().split():
        try:
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:  # a controller that cannot be handed down here is one that pods do without
            continue


def _weigh(cgroup: Path) -> None:
    """Set the share of the processors that a cgroup gets beside the machine's processes, when all want them."""
    for file, weight in _WEIGHTS.items():
        if (cgroup / file).exists():
            (cgroup / file).write_text(str(weight))


def remove(name: str, root: Path = ROOT, *, patience: float = 10.0) -> None:
    """Kill whatever still runs below the cgroup ``name`` and remove it everywhere.

    Nothing but our own pods can be there: the cgroup is ours. Raises when a process refuses to die.
    """
    for hierarchy in hierarchies(root):
        top = hierarchy / name
        deadline = time.monotonic() + patience
        while top.exists():
            _kill(top)
            _prune(top)
            if time.monotonic() > deadline:
                message = f"{top} cannot be removed: it still holds processes or cgroups"
                raise ClusterError(message, hint=f"see the cgroup.procs files below {top}")
            if top.exists():
                time.sleep(0.05)
        parent = top.parent
        if parent != hierarchy and parent.exists() and not any(path.is_dir() for path in parent.iterdir()):
            parent.rmdir()


def _kill(top: Path) -> None:
    for procs in top.rglob("cgroup.procs"):
        try:
            pids = procs.read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def _prune(top: Path) -> None:
    folders = [path for path, _, _ in os.walk(top, topdown=False)]
    for folder in folders:
        try:
            os.rmdir(folder)  # noqa: PTH106 - os.walk gives strings
        except OSError:  # still busy: the caller tries again
            continue
