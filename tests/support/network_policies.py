"""What enforces NetworkPolicies on the local cluster's nodes: kube-router's part for them, beside kube-proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster import Cluster, binaries, network, packages
from tests.cluster.processes import Component, start, stop
from tests.cluster.shell import run

_NAME: Final = "kube-router"
_REMOVE: Final = "iptables-save | grep -v -e KUBE-ROUTER -e KUBE-POD-FW -e KUBE-NWPLCY | iptables-restore"
_NEEDS: Final = {"ipset": "ipset"}  # Debian's package, by its program


@contextmanager
def enforced(cluster: Cluster, logs: Path) -> Iterator[None]:
    """Enforce NetworkPolicies on all nodes; afterwards everything is allowed as before."""
    packages.ensure(_NEEDS)
    program = str(binaries.program(_NAME))
    plan = cluster.plan
    started = []
    try:
        for node in plan.nodes:
            argv = [
                program,
                "--run-firewall=true",
                "--run-router=false",
                "--run-service-proxy=false",
                "--run-loadbalancer=false",
                f"--kubeconfig={cluster.kubeconfig}",
                f"--hostname-override={node.name}",
                f"--service-cluster-ip-range={plan.services}",
                "--iptables-sync-period=10s",
                "--health-port=0",
                "--metrics-port=0",
                "--v=1",
            ]
            log = str(logs / f"{node.name}.{_NAME}.log")
            started.append(start(Component(f"{node.name}.{_NAME}", argv, node.netns, log)))
        yield
    finally:
        stop(started)
        for node in plan.nodes:  # its own --cleanup-config needs IPVS
            run(network.inside(node.netns, "sh", "-c", _REMOVE))
