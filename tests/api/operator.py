"""The operator as a process against a real API server, and what the audit log saw of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.cluster import Cluster

T = TypeVar("T")
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CHILDREN = "controllerrevisions,configmaps,services,deployments,horizontalpodautoscalers,poddisruptionbudgets"
OURS = "conch.dev/service"


def wait_for(what: str, look: Callable[[], T], seconds: float = 60) -> T:
    """Look until the answer is true; say what was awaited, and what was seen last, when it never was."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for: {what}; seen last: {seen!r}")
        time.sleep(0.1)


class Kubectl:
    """kubectl against one cluster, as a user of it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints; an error is raised with its words."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster", "kubectl", "--", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, "CONCH_CLUSTER": self._cluster.name},
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *bodies: dict[str, Any], namespace: str) -> None:
        """Apply objects, server-side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self("-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(listed))

    def get(self, namespace: str, kinds: str, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of some kinds."""
        items: list[dict[str, Any]] = json.loads(self("-n", namespace, "get", kinds, "-o", "json", *arguments))["items"]
        return items


class Operator:
    """One operator process. A context manager: it is ended in peace when the test is over."""

    def __init__(self, cluster: Cluster, log: Path, **env: str) -> None:
        self._cluster = cluster
        self._log = log
        self._env = env
        self.metrics_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; it is up when it watches, or stands by."""
        env = {
            **os.environ,
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "CONCH_SERVING_IMAGE": "conch/serving:test",
            "CONCH_LOG_FORMAT": "console",
            "CONCH_PROBE_PORT": str(free_port()),
            "CONCH_METRICS_PORT": str(self.metrics_port),
            **self._env,
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([Path(sys.executable).with_name("conch")], env=env, stderr=log, stdout=log)

    def stop(self) -> None:
        """End the process in peace."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def said(self) -> str:
        """What it logged so far."""
        return self._log.read_text()


class Audit:
    """What the API server logged of one writer since a moment."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.audit_log
        self._from = self._path.stat().st_size if self._path.exists() else 0

    def calls(self, agent: str = "conch/") -> Iterator[dict[str, Any]]:
        """Yield the requests of a user agent, in order."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            for line in log:
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    if entry.get("userAgent", "").startswith(agent):
                        yield entry

    def writes(self, namespace: str | None = None) -> list[str]:
        """Return our writes as `verb resource[/subresource] name`, Leases apart: they are the election's."""
        found = []
        for entry in self.calls():
            ref = entry.get("objectRef", {})
            if entry["verb"] not in WRITES or ref.get("resource") == "leases":
                continue
            if namespace is None or ref.get("namespace") == namespace:
                resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
                found.append(f"{entry['verb']} {resource} {ref.get('name', '')}")
        return found


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def isvc(name: str = "magika", uri: str = "s3://models/magika", **predictor: Any) -> dict[str, Any]:
    """Return an InferenceService."""
    model = {"modelFormat": {"name": "onnx"}, "storageUri": uri}
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def condition(body: dict[str, Any], kind: str) -> dict[str, str]:
    """Return a condition of a service; empty when it is absent."""
    conditions = body.get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == kind), {})


def settled(kubectl: Kubectl, namespace: str, count: int = 1) -> Callable[[], bool]:
    """Return a look: whether so many services are Ready at their latest generation."""

    def look() -> bool:
        services = kubectl.get(namespace, "isvc")
        ready = [
            s
            for s in services
            if condition(s, "Ready").get("status") == "True"
            and s["status"].get("observedGeneration") == s["metadata"]["generation"]
        ]
        return len(ready) >= count

    return look


def essence(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """Return what our children say, without what differs from one run to the next."""
    found = {}
    for body in kubectl.get(namespace, CHILDREN, "-l", OURS):
        meta = body["metadata"]
        spec = {key: value for key, value in body.items() if key in {"spec", "data", "revision"}}
        for transient in ("clusterIP", "clusterIPs"):
            spec.get("spec", {}).pop(transient, None)
        found[f"{body['kind']}/{meta['name']}"] = {"labels": meta["labels"], **spec}
    return found
