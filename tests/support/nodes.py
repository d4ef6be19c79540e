"""What an administrator does to nodes, and what happens to them; each is as it was when the `with` is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from conch.api.kinds import DEPLOYMENT, POD, Kind
from conch_contract import names
from tests.support.kube import Kube, Object
from tests.support.place import Place
from tests.support.service import Service, is_ready
from tests.support.wait import until

NODE = Kind("", "v1", "Node", "nodes")
_DRAIN_SECONDS = 150
_STORIES = "e2e-"  # how the namespaces of stories begin: what is in them may be going


@contextlib.contextmanager
def drain(kube: Kube, service: Service, node: str) -> Iterator[float]:
    """Drain a node of the pods of one service, and of no others; yield the seconds that it took."""
    began = time.monotonic()
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={_DRAIN_SECONDS}s")
    try:
        kube.run("drain", node, *options, f"--pod-selector={names.LABEL_SERVICE}={service.name}")
        yield time.monotonic() - began
    finally:
        kube.run("uncordon", node)


@contextlib.contextmanager
def cut_power(place: Place, node: str) -> Iterator[None]:
    """Cut a node's power, and give it back; whatever is not a story's runs again before the next one."""
    assert place.local is not None
    try:
        place.local.stop_node(node)
        yield
    finally:
        place.local.start_node(node)
        until(lambda: is_well(place.kube, node), f"{node} is Ready again")
        until(lambda: not _missing(place.kube), "all runs again", seen=lambda: _missing(place.kube))


def is_well(kube: Kube, node: str) -> bool:
    """Whether Kubernetes thinks that a node is."""
    return is_ready(kube.get(NODE, "", node) or {})


def clear(kube: Kube, node: str, namespace: str) -> None:
    """Move the pods of a namespace to other nodes, one after the other, the oldest first: others depend on it."""

    def running() -> list[Object]:
        pods = [pod for pod in kube.list(POD, namespace) if "deletionTimestamp" not in pod["metadata"]]
        return sorted(filter(is_ready, pods), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    before = running()
    kube.run("cordon", node)
    try:
        for pod in before:
            if pod["spec"]["nodeName"] == node:
                kube.delete(POD, namespace, pod["metadata"]["name"])
                until(lambda: len(running()) == len(before), f"{namespace} is whole again without {node}")
    finally:
        kube.run("uncordon", node)


def _missing(kube: Kube) -> list[str]:
    """The Deployments, of no story, that lack pods."""
    found = [d for d in kube.list(DEPLOYMENT) if not d["metadata"]["namespace"].startswith(_STORIES)]
    return [d["metadata"]["name"] for d in found if d["status"].get("availableReplicas", 0) < d["spec"]["replicas"]]
