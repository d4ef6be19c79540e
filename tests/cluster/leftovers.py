"""Removing what a cluster leaves behind, also when it was killed half-way.

What is ours is known by where it is: mounts below the cluster's folder, container shims that name one of its
sockets, cgroups below its cgroup. Components are known by their records (see ``processes``), never by name.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import cgroups, health, network, processes
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Node, Plan
from tests.cluster.processes import Identity
from tests.cluster.shell import run
from tests.cluster.worker import cgroup, socket

_CNI_CACHE = Path("/var/lib/cni/results")
_SANDBOXES = Path("io.containerd.grpc.v1.cri") / "sandboxes"
_SHIM = "containerd-shim"
_KUBELET_LEFTOVERS = (Path("/var/log/containers"), Path("/var/lib/kubelet"))
"""Folders that a kubelet fills wherever its own root is."""


def mounts_below(folder: Path, mountinfo: str) -> list[Path]:
    """Return the mount points below ``folder``, the deepest first, from the text of ``/proc/self/mountinfo``."""
    points = [Path(line.split()[4].replace("\\040", " ")) for line in mountinfo.splitlines()]
    found = [point for point in points if point != folder and point.is_relative_to(folder)]
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def is_shim(command_line: list[str], address: str) -> bool:
    """Whether a command line is that of a container shim of the containerd that listens on ``address``."""
    return bool(command_line) and Path(command_line[0]).name.startswith(_SHIM) and address in command_line


def shims(address: Path) -> Iterable[Identity]:
    """Yield the running shims of one containerd: they outlive it by design."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if is_shim(words, str(address)) and (identity := processes.identify(int(entry.name))):
            yield identity


def remove_pods(plan: Plan, paths: ClusterPaths, node: Node) -> None:
    """End a node's pods and their shims, and unmount what they used; the node's components are down already."""
    cgroups.remove(cgroup(plan, node))
    processes.stop(shims(socket(paths, node)), grace=1.0)
    unmount(paths.node(node.name))
    for sandbox in (paths.node(node.name) / "containerd" / _SANDBOXES).glob("*"):
        for result in _CNI_CACHE.glob(f"*-{sandbox.name}-*"):
            result.unlink(missing_ok=True)


def unmount(folder: Path) -> None:
    """Unmount everything below a folder."""
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        run(["umount", "--lazy", point], check=False)


def remove_all(plan: Plan, paths: ClusterPaths) -> None:
    """Remove pods, namespaces, mounts, cgroups and the state folder; the components are down already."""
    for node in plan.nodes:
        remove_pods(plan, paths, node)
    cgroups.remove(plan.cgroup)
    network.remove(plan)
    unmount(paths.root)
    _forget_kubelet(paths)
    shutil.rmtree(paths.root)


def _forget_kubelet(paths: ClusterPaths) -> None:
    """Remove links into the cluster's folder; the last cluster also removes the kubelet's own, empty folders."""
    last = not [path for path in paths.root.parent.glob("*/nodes") if path.parent != paths.root]
    for folder in _KUBELET_LEFTOVERS:
        for path in sorted(folder.rglob("*"), reverse=True):
            # Another cluster's kubelet may be at work in the same folder: what it took away first is gone too.
            with contextlib.suppress(OSError):
                if _is_dead_link(path, paths.root) or (last and _is_dead_socket(path)):
                    path.unlink()
                elif last and path.is_dir() and not path.is_symlink():
                    path.rmdir()
        if last:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_dead_link(path: Path, root: Path) -> bool:
    return path.is_symlink() and root in path.readlink().parents


def _is_dead_socket(path: Path) -> bool:
    return path.is_socket() and not health.is_healthy(str(path))
