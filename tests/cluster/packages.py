"""Debian packages that the tool needs and installs by itself.

Only the programs are wanted: the services that some packages would start (containerd has one) must not run,
so ``policy-rc.d`` forbids starting any while packages are installed, and is put back as it was.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.paths import cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import log_run

NETWORK = {"ip": "iproute2", "nsenter": "util-linux"}
NODES = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mount": "mount",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
COMPILER = {"gcc": "gcc", "/usr/include/stdio.h": "libc6-dev"}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}

_POLICY = Path("/usr/sbin/policy-rc.d")
_installing = threading.Lock()


def missing(needs: dict[str, str]) -> list[str]:
    """Return the packages whose program (a name on PATH, or a path) is not there."""
    return sorted({package for program, package in needs.items() if not _there(program)})


def _there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def ensure(*groups: dict[str, str]) -> None:
    """Install what is missing of these groups; does nothing, fast, when nothing is."""
    with _installing:
        wanted = sorted({package for group in groups for package in missing(group)})
        if wanted:
            _install(wanted)
    still = [program for group in groups for program in group if not _there(program)]
    if still:
        message = f"still missing after the installation: {', '.join(still)}"
        raise ClusterError(message, hint="see the names in tests/cluster/packages.py")


def _install(names: Iterable[str]) -> None:
    if shutil.which("apt-get") is None:
        message = f"these programs' packages are missing and there is no apt-get: {', '.join(names)}"
        raise ClusterError(message, hint="install them with your system's package manager")
    log = cache_dir() / "logs" / "apt.log"
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    hint = "the machine's apt sources must work: try apt-get update by hand"
    with step(f"installing Debian packages: {' '.join(names)}"), _no_services():
        log_run(["apt-get", "update"], log, env=env, hint=hint)
        log_run(["apt-get", "install", "-y", "--no-install-recommends", *names], log, env=env, hint=hint)


@contextmanager
def _no_services() -> Iterator[None]:
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def require_root() -> None:
    """Raise unless this is root: namespaces, mounts and cgroups need it."""
    if os.geteuid() != 0:
        message = "the local cluster needs root (network namespaces, mounts, cgroups)"
        raise ClusterError(message, hint="run it with sudo, or as root of a throw-away machine")
