"""Where the tool keeps things: a cache that outlives clusters, and one state folder per cluster.

Nothing is written into the checkout, so neither git nor a packager can pick up a key or a binary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def cache_dir() -> Path:
    """Return the folder of built binaries and image layers (``CONCH_CACHE``, else ``~/.cache/conch``)."""
    return Path(os.environ.get("CONCH_CACHE") or Path.home() / ".cache" / "conch")


def state_root() -> Path:
    """Return the folder that holds one folder per cluster (``CONCH_STATE``, else ``/var/lib/conch``).

    The path is kept short on purpose: a unix socket's path may have 107 characters only.
    """
    return Path(os.environ.get("CONCH_STATE") or "/var/lib/conch")


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster, all below ``root``."""

    root: Path

    @property
    def plan(self) -> Path:
        """The recorded address plan: its presence means the cluster was (at least partly) brought up."""
        return self.root / "plan.json"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """One log file per component."""
        return self.root / "logs"

    @property
    def records(self) -> Path:
        """One record per component: how it was started, and as which process."""
        return self.root / "components"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, JSON lines."""
        return self.logs / "audit.jsonl"

    def kubeconfig(self, user: str = "admin") -> Path:
        """The kubeconfig of a component or, by default, of the administrator."""
        return self.config / f"{user}.kubeconfig"

    def node(self, node: str) -> Path:
        """The folder of one node: its container runtime, its kubelet, its volumes."""
        return self.root / "nodes" / node

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        """Return the paths of the cluster called ``name``."""
        return cls(state_root() / name)
