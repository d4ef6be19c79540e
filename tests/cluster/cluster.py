"""The cluster as one object: what the commands and the tests hold in their hands."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster import (
    bringup,
    health,
    images,
    imagestore,
    leftovers,
    loading,
    network,
    packages,
    preparation,
    processes,
    worker,
)
from tests.cluster.errors import ClusterError
from tests.cluster.paths import ClusterPaths, state_root
from tests.cluster.plan import Node, Plan, free_slot
from tests.cluster.processes import Component, Identity, Records
from tests.cluster.progress import print_line, step

DEFAULT_NAME = "conch"
_START_TIMEOUT = 60.0


class Cluster:
    """A local Kubernetes cluster, identified by its name."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self.name = name
        self.paths = ClusterPaths.of(name)
        self.records = Records(self.paths.records)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works from the machine itself."""
        return self.paths.kubeconfig()

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: JSON lines at level Metadata, without the RequestReceived stage."""
        return self.paths.audit_log

    @property
    def plan(self) -> Plan:
        """Names and addresses; raises when the cluster was never brought up."""
        if not self.paths.plan.exists():
            message = f"there is no cluster {self.name!r}"
            raise ClusterError(message, hint=f".venv/bin/python -m tests.cluster up --name {self.name}")
        return Plan(**json.loads(self.paths.plan.read_text()))

    def up(self, nodes: int = 2, *, kwok: bool = False, metrics_server: bool = True, build: Sequence[str] = ()) -> None:
        """Bring the cluster up and wait until it works; what is up already stays untouched.

        Args:
            nodes: real nodes; 0 is a control plane only.
            kwok: whether it has fake nodes too.
            metrics_server: whether the resource metrics API is needed; a cluster of nodes that has it keeps it.
            build: images to build and to load onto the nodes, while programs compile.
        """
        packages.require_root()
        modules = preparation.cluster_modules(nodes, kwok=kwok, metrics_server=metrics_server)
        debian = [packages.NETWORK, packages.NODES if nodes else {}, packages.COMPILER]
        started = time.monotonic()
        with ThreadPoolExecutor() as pool:
            programs = pool.submit(preparation.compile_programs, modules)
            preparation.install_packages(debian, for_images=bool(build))
            with _lock(self.name):
                self._clean_remains(nodes, kwok=kwok)
                plan = self._claim(nodes, kwok=kwok)
                bringup.lay_ground(plan, self.paths)
                runtimes = pool.submit(self._bring_up_runtimes, plan, build)
                programs.result()
                bringup.bring_up_control_plane(plan, self.paths, self)
                runtimes.result()
                bringup.bring_up_nodes(plan, self.paths, self, metrics_server=metrics_server)
        print_line(f"cluster {self.name} is up after {time.monotonic() - started:.1f} s; KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """Take the cluster down and leave nothing of it."""
        packages.require_root()
        with _lock(self.name):
            if self.paths.plan.exists():
                with step(f"taking cluster {self.name} down"):
                    self._remove(self.plan)

    def launch(self, *components: Component) -> None:
        """Start components and wait until all are well; those that run already are left alone."""
        running = self.records.running()
        for component in components:
            if component.name not in running:
                running[component.name] = processes.start(component)
                self.records.save(component, running[component.name])
        for component in components:
            health.wait_component(component, running[component.name], _START_TIMEOUT)

    def _bring_up_runtimes(self, plan: Plan, names: Sequence[str]) -> None:
        """Build images and bring them onto the nodes, before a kubelet makes the first container there.

        What a new node had to import is kept for the next one.
        """
        preparation.build_images(names)
        for node in plan.nodes:
            is_new = f"{node.name}.kubelet" not in self.records.load()
            bringup.bring_up_runtime(plan, self.paths, node, self)
            if self._load_onto(node, names) and is_new:
                containerd = f"{node.name}.containerd"
                self.stop_component(containerd)
                imagestore.keep(*worker.image_store(self.paths, node))
                self.start_component(containerd)

    def add_registry(self, name: str, url: str) -> None:
        """Have all nodes pull the images of a registry from a URL.

        Args:
            name: the registry in references of images: host, or host:port.
            url: where it answers, which may be plain HTTP.
        """
        for node in self.plan.nodes:
            worker.add_registry(self.paths, node, name, url)

    def start_component(self, name: str) -> None:
        """Start a component that was up before, the same way, and wait until it is well."""
        self.launch(self._record(name)[0])

    def stop_component(self, name: str, *, grace: float = 10.0) -> None:
        """End a component (SIGTERM, and SIGKILL after ``grace`` seconds; 0 kills at once)."""
        component, identity = self._record(name)
        if identity is not None:
            processes.stop([identity], grace=grace)
        self.records.save(component, None)

    def stop_node(self, node: str) -> None:
        """Lose a node as in a power cut: nothing reaches it any more, and its components and pods die at once."""
        found = self._node(node)
        network.cut(self.plan, found)
        for name in sorted(self.records.load(), reverse=True):
            if name.startswith(f"{node}."):
                self.stop_component(name, grace=0.0)
        leftovers.remove_pods(self.plan, self.paths, found)

    def start_node(self, node: str) -> None:
        """Bring back a node that was stopped."""
        plan, found = self.plan, self._node(node)
        network.join(plan, found)
        bringup.prepare_node(plan, found)
        for program in ("containerd", "kubelet", "kube-proxy"):
            self.start_component(f"{node}.{program}")

    def status(self) -> dict[str, Any]:
        """Return how the cluster is, as plain data."""
        up = self.paths.plan.exists()
        return {"name": self.name, "up": up, **(self._details() if up else {})}

    def load(self, *names: str) -> None:
        """Bring built images onto every node, unless the node has the same image already."""
        with ThreadPoolExecutor() as pool:
            loaded = list(pool.map(lambda node: self._load_onto(node, names), self.plan.nodes))
        if not any(loaded):
            print_line(f"on every node already: {', '.join(names)}")

    def _load_onto(self, node: Node, names: Sequence[str]) -> bool:
        """Bring built images onto a node; return whether it lacked one."""
        stale = [image for image in map(images.exported, names) if not loading.is_loaded(self.paths, node, image)]
        for image in stale:
            with step(f"loading {image.reference} onto {node.name}"):
                loading.load(self.paths, image, node)
        return bool(stale)

    def run_in(self, place: str, argv: Sequence[str]) -> int:
        """Run a command in the network of ``control`` or of a node; returns its exit status."""
        netns = self.plan.control_netns if place == "control" else self._node(place).netns
        return subprocess.run(network.inside(netns, *argv), check=False).returncode

    def _details(self) -> dict[str, Any]:
        running = self.records.running()
        records = self.records.load()
        return {
            "kubeconfig": str(self.kubeconfig),
            "server": self.plan.api_url,
            "auditLog": str(self.audit_log),
            "logs": str(self.paths.logs),
            "versions": bringup.versions(),
            "nodes": bringup.nodes(self.paths),
            "components": {
                name: {
                    "pid": running[name].pid if name in running else None,
                    "healthy": name in running and health.is_healthy(component.health),
                }
                for name, (component, _) in records.items()
            },
        }

    def _record(self, name: str) -> tuple[Component, Identity | None]:
        records = self.records.load()
        if name not in records:
            message = f"cluster {self.name!r} has no component {name!r}"
            raise ClusterError(message, hint=f"it has: {', '.join(records) or 'none'}")
        return records[name]

    def _node(self, name: str) -> Node:
        for node in self.plan.nodes:
            if node.name == name:
                return node
        message = f"cluster {self.name!r} has no node {name!r}"
        raise ClusterError(message, hint=f"it has: control, {', '.join(n.name for n in self.plan.nodes)}")

    def _clean_remains(self, nodes: int, *, kwok: bool) -> None:
        """Remove a cluster that cannot be continued: of another shape, or with nothing of it running.

        One of which only some parts are dead is continued: they are started again and find their data.
        """
        if not self.paths.plan.exists():
            return
        plan = self.plan
        same_shape = (plan.nodes_count, plan.kwok) == (nodes, kwok)
        if same_shape and self.records.running() and network.exists(plan.control_netns):
            return
        reason = "a cluster of another shape" if not same_shape else "a run that was cut short"
        with step(f"cleaning what {reason} left"):
            self._remove(plan)

    def _claim(self, nodes: int, *, kwok: bool) -> Plan:
        """Return the plan of the running cluster, or record a new one with a slot that no other has."""
        if self.paths.plan.exists():
            return self.plan
        with _lock(".slots"):
            others = [json.loads(path.read_text())["slot"] for path in state_root().glob("*/plan.json")]
            plan = Plan(self.name, free_slot(others), nodes, kwok)
            self.paths.root.mkdir(parents=True, exist_ok=True)
            self.paths.plan.write_text(json.dumps(plan.record()))
        # The folder of an earlier cluster may be deleted while its pods still have addresses here.
        network.remove(plan)
        return plan

    def _remove(self, plan: Plan) -> None:
        processes.stop(self.records.running().values(), grace=0.5)
        leftovers.remove_all(plan, self.paths)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """Let one command at a time change a cluster."""
    folder = state_root() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
