"""Where the story plays: the local cluster of tests/cluster, or the one of the user's kubeconfig."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.api.kinds import NAMESPACE, SERVICE
from conch.api.names import CRD_NAME
from tests.cluster import Cluster, clients, images
from tests.cluster.cluster import DEFAULT_NAME
from tests.support.kube import Kube, KubectlError
from tests.support.ports import free_port, listens
from tests.support.wait import TIMEOUT, until

CHART = Path(__file__).resolve().parents[2] / "charts" / "conch"
SYSTEM = "conch-system"
RELEASE = "conch"
OPERATOR = "conch-operator"
METRICS_API = "conch-metrics-api"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_IMAGES = ("operator", "serving", "tools")


@dataclass(frozen=True)
class Place:
    """A cluster and the way to it. `local` is None where it is not a cluster of these tests."""

    kube: Kube
    local: Cluster | None

    def prepare(self) -> None:
        """Bring the images onto the nodes; elsewhere that is the user's to do."""
        if self.local is not None:
            self.local.load(*_IMAGES)

    def install(self, **values: str) -> None:
        """Install the chart as a user does, or upgrade it, with values of the section `autoscaling`.

        A user's own installation is left alone.
        """
        if self.local is None and self._installed():
            return
        self.namespace(SYSTEM)
        options = [f"--set-string=autoscaling.{name}={value}" for name, value in values.items()]
        if self.local:
            options.append(f"--set-string=podAnnotations.image-id={images.exported('operator').identity}")
        self.helm("upgrade", "--install", RELEASE, str(CHART), f"--namespace={SYSTEM}", *options)
        builtin = values.get("metricsApi", "builtin") == "builtin"
        for deployment in (OPERATOR, METRICS_API) if builtin else (OPERATOR,):
            self.kube.run("rollout", "status", f"deployment/{deployment}", f"--namespace={SYSTEM}", TIMEOUT)

    def namespace(self, name: str) -> None:
        """Make a namespace that lets only `restricted` pods in, unless it is there."""
        self.kube.create(NAMESPACE, {"metadata": {"name": name, "labels": RESTRICTED}})

    @contextlib.contextmanager
    def reach(self, namespace: str, service: str, *ports: int) -> Iterator[list[str]]:
        """Yield host:port of a Service's ports, as this machine reaches them.

        The local cluster's Services have routes from here; elsewhere kubectl forwards, to one pod. A pod is
        ready a moment before every node's kube-proxy sends it connections; that moment is waited for here.
        """
        if self.local is not None:
            address = until(lambda: self._cluster_ip(namespace, service), f"Service {namespace}/{service}")
            until(lambda: all(listens(port, address) for port in ports), f"{namespace}/{service} answers")
            yield [f"{address}:{port}" for port in ports]
            return
        free = [free_port() for _ in ports]
        pairs = [f"{here}:{there}" for here, there in zip(free, ports, strict=True)]
        forward = self.kube.start("port-forward", f"--namespace={namespace}", f"service/{service}", *pairs)
        try:
            until(lambda: all(map(listens, free)), f"kubectl forwards to {namespace}/{service}")
            yield [f"127.0.0.1:{port}" for port in free]
        finally:
            forward.terminate()
            forward.wait(10)

    def _cluster_ip(self, namespace: str, service: str) -> str | None:
        found = self.kube.get(SERVICE, namespace, service)
        return str(found["spec"]["clusterIP"]) if found else None

    def _installed(self) -> bool:
        try:
            self.kube.run("get", "crd", CRD_NAME)
        except KubectlError:
            return False
        return True

    def helm(self, *arguments: str) -> None:
        """Run Helm.

        Raises:
            KubectlError: it failed, with its own words.
        """
        program = clients.program("helm") if self.local else _own("helm")
        config = {"KUBECONFIG": str(self.local.kubeconfig)} if self.local else {}
        done = subprocess.run(
            [program, *arguments], env={**os.environ, **config}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def open_place(
    *, current: bool = False, nodes: int = 2, metrics_server: bool = True, build: Sequence[str] = _IMAGES
) -> Iterator[Place]:
    """Yield the local cluster, brought up with these images, or with `current` the one that kubectl talks to.

    `CONCH_CLUSTER` names the local cluster, as for `python -m tests.cluster`.
    """
    if current:
        with Kube(_own("kubectl"), None) as kube:
            yield Place(kube, None)
        return
    _local_cluster().up(nodes, metrics_server=metrics_server, build=build)
    with attach_place() as place:
        yield place


@contextlib.contextmanager
def attach_place() -> Iterator[Place]:
    """Yield the local cluster, which is up."""
    cluster = _local_cluster()
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        yield Place(kube, cluster)


def _local_cluster() -> Cluster:
    return Cluster(os.environ.get("CONCH_CLUSTER", DEFAULT_NAME))


def _own(program: str) -> Path:
    """The user's own program, else ours."""
    found = shutil.which(program)
    return Path(found) if found else clients.program(program)


def build_name(text: str) -> str:
    """Return a name that Kubernetes takes, from any text: at most 40 of a-z, 0-9 and '-'.

    Of two long texts that begin alike the names differ: a story would wait for the end of the other's namespace.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return name if len(name) <= 40 else f"{name[:33].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
