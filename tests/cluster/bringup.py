"""The order in which a cluster comes up: what a component needs is there before the component starts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from tests.cluster import addons, binaries, cgroups, clients, controlplane, health, imagestore, loading, network, worker
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Node, Plan
from tests.cluster.processes import Component
from tests.cluster.progress import step
from tests.cluster.shell import run

_READY_TIMEOUT = 120.0
_FAKE_NODES = 2
_FIELD_MANAGER = "local-cluster"


class Launcher(Protocol):
    """Who starts components and remembers them."""

    def launch(self, *components: Component) -> None:
        """Start all, then wait until all are well; those that run already are left alone."""


def lay_ground(plan: Plan, paths: ClusterPaths) -> None:
    """Make the network and the certificates."""
    with step("network and certificates"):
        network.create(plan)
        controlplane.configure(plan, paths)


def bring_up_runtime(plan: Plan, paths: ClusterPaths, node: Node, launcher: Launcher) -> None:
    """Start a node's containerd; a node that is new has the images of earlier ones."""
    prepare_node(plan, node)
    worker.configure(plan, paths, node)
    imagestore.seed(*worker.image_store(paths, node))
    launcher.launch(worker.containerd(paths, node))


def bring_up_control_plane(plan: Plan, paths: ClusterPaths, launcher: Launcher) -> None:
    """Start what answers for the cluster, and give it what needs no node."""
    with step("control plane: etcd, API server, controllers, scheduler"):
        launcher.launch(controlplane.etcd(plan, paths))
        launcher.launch(controlplane.apiserver(plan, paths))
        launcher.launch(controlplane.controller_manager(plan, paths), controlplane.scheduler(plan, paths))
    with step("Gateway API, storage"):
        apply_files(paths, binaries.manifests("gateway-api"))
        apply(paths, [addons.storage_class(), *addons.volumes(plan, paths)])


def bring_up_nodes(plan: Plan, paths: ClusterPaths, launcher: Launcher, *, metrics_server: bool = True) -> None:
    """Start what runs pods and serves them, metrics-server only where it is needed; wait until it works."""
    metrics_server = metrics_server and bool(plan.nodes)
    for node in plan.nodes:
        with step(f"{node.name}: kubelet, kube-proxy"):
            loading.load_pause(paths, node)
            launcher.launch(worker.kubelet(paths, node), worker.kube_proxy(paths, node))
    if plan.nodes:
        with step("DNS"):
            apply(paths, addons.dns(plan))
            launcher.launch(controlplane.coredns(plan, paths))
    if metrics_server:
        with step("metrics-server"):
            ca = base64.b64encode((paths.pki / "ca.crt").read_bytes()).decode()
            apply(paths, addons.metrics(plan, ca))
            launcher.launch(controlplane.metrics_server(plan, paths))
    if plan.kwok:
        with step("fake nodes (kwok)"):
            launcher.launch(controlplane.kwok(plan, paths))
            apply(paths, [addons.fake_node(index) for index in range(1, _FAKE_NODES + 1)])
    _wait_until_it_works(plan, paths, metrics_server=metrics_server)


def prepare_node(plan: Plan, node: Node) -> None:
    """Make what a node's processes must find: its cgroup, in every hierarchy."""
    cgroups.create(worker.cgroup(plan, node))


def kubectl(paths: ClusterPaths, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl as the administrator and return its output."""
    argv = [clients.program("kubectl"), "--kubeconfig", paths.kubeconfig(), *arguments]
    return run(argv, stdin=stdin, check=check).stdout


def apply(paths: ClusterPaths, objects: Iterable[dict[str, Any]]) -> None:
    """Apply objects on the server's side."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    kubectl(paths, "apply", "--server-side", f"--field-manager={_FIELD_MANAGER}", "-f", "-", stdin=text)


def apply_files(paths: ClusterPaths, files: Iterable[Path]) -> None:
    """Apply manifests on the server's side."""
    names = [f"--filename={path}" for path in files]
    kubectl(paths, "apply", "--server-side", f"--field-manager={_FIELD_MANAGER}", *names)


def _wait_until_it_works(plan: Plan, paths: ClusterPaths, *, metrics_server: bool) -> None:
    expected = len(plan.nodes) + (_FAKE_NODES if plan.kwok else 0)
    if expected:
        with step(f"waiting for {expected} nodes to be Ready"):
            _wait("every node to be Ready", lambda: sum(node["ready"] for node in nodes(paths)) >= expected, paths)
    _wait("the default service account", lambda: "default" in _get(paths, "serviceaccount", "-n", "default"), paths)
    if metrics_server:
        with step("waiting for the metrics API"):
            api = "apiservice/v1beta1.metrics.k8s.io"
            condition = '-ojsonpath={.status.conditions[?(@.type=="Available")].status}'
            _wait("the metrics API", lambda: kubectl(paths, "get", api, condition, check=False) == "True", paths)


def _wait(what: str, condition: Callable[[], bool], paths: ClusterPaths) -> None:
    health.wait_for(what, condition, _READY_TIMEOUT, paths.logs / f"{controlplane.CONTROLLERS}.log")


def _get(paths: ClusterPaths, *arguments: str) -> str:
    return kubectl(paths, "get", *arguments, "-oname", check=False)


def nodes(paths: ClusterPaths) -> list[dict[str, Any]]:
    """Return name, address, version and readiness of every node; empty while the API server does not answer."""
    output = kubectl(paths, "get", "nodes", "-ojson", "--request-timeout=5s", check=False)
    return [_node_summary(item) for item in json.loads(output)["items"]] if output else []


def _node_summary(item: dict[str, Any]) -> dict[str, Any]:
    status = item.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    addresses = {a["type"]: a["address"] for a in status.get("addresses", [])}
    return {
        "name": item["metadata"]["name"],
        "ready": conditions.get("Ready") == "True",
        "address": addresses.get("InternalIP"),
        "version": status.get("nodeInfo", {}).get("kubeletVersion"),
    }


def versions() -> dict[str, str]:
    """Return the pinned version of everything that is built from Go modules."""
    return {name: binaries.version(module) for name, module in binaries.MODULES.items()}
