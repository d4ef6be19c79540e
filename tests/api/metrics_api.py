"""The metrics API as a process, registered with a real API server, and pods that are nothing but records of it."""

from __future__ import annotations

import json
import os
import signal
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from conch.api.kinds import API_SERVICE, ENDPOINT_SLICE, POD, SERVICE
from conch.api.metrics import API_SERVICE_NAME
from conch.api.names import ANNOTATION_MODEL, LABEL_NAME
from conch_contract import names
from tests.api.operator import readiness
from tests.cluster import Cluster
from tests.support.forked import Forked
from tests.support.kube import Kube, Object
from tests.support.ports import free_port
from tests.support.wait import until

NAMESPACE, NAME = "conch-metrics-test", "metrics-api"
ROOT = "/apis/custom.metrics.k8s.io/v1beta2"


class MetricsProcess:
    """`conch-metrics`, and the Service by which the API server finds it. A context manager."""

    def __init__(self, cluster: Cluster, kube: Kube, log: Path, **env: str) -> None:
        self._cluster, self._kube, self._log, self._env = cluster, kube, log, env
        self.port, self.probe_port, self.metrics_port = free_port(), free_port(), free_port()
        self.process: Forked | None = None

    def __enter__(self) -> Self:
        self._kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._kube.apply(self._ways(), NAMESPACE)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._kube.delete(API_SERVICE, "", API_SERVICE_NAME)  # else discovery complains to all who come after

    def start(self) -> None:
        """Start the process; it is not yet believed."""
        env = {
            **os.environ,
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "CONCH_SERVICE": NAME,
            "CONCH_NAMESPACE": NAMESPACE,
            "CONCH_LOG_FORMAT": "console",
            "CONCH_API_PORT": str(self.port),
            "CONCH_PROBE_PORT": str(self.probe_port),
            "CONCH_METRICS_PORT": str(self.metrics_port),
            **self._env,
        }
        self.process = Forked(["conch-metrics"], self._log, env)

    def stop(self) -> None:
        """End the process in peace."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def probe(self) -> tuple[int, str]:
        """Return the status and the text of /readyz; 0: nothing listens."""
        return readiness(self.probe_port)

    def until_answering(self) -> None:
        """Wait until the API server believes it."""
        until(lambda: self.probe()[0] == 200, "the metrics API is ready", seen=self.log)
        until(lambda: available(self._kube), "the API server has taken it up", seen=self.log)

    def log(self) -> str:
        """Return the end of the log file."""
        return self._log.read_text()[-3000:]

    def _ways(self) -> list[Object]:
        """The Service without a selector, its one endpoint on this machine, and the APIService of the chart."""
        meta = {"name": NAME, "namespace": NAMESPACE}
        host = str(self._cluster.plan.host)
        return [
            {
                "apiVersion": "v1",
                "kind": SERVICE.name,
                "metadata": meta,
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": self.port}]},
            },
            {
                "apiVersion": ENDPOINT_SLICE.api_version,
                "kind": ENDPOINT_SLICE.name,
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": NAME}},
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            },
            registered(NAMESPACE, NAME),
        ]


def registered(namespace: str, service: str) -> Object:
    """Return the APIService as the chart makes it."""
    return {
        "apiVersion": API_SERVICE.api_version,
        "kind": API_SERVICE.name,
        "metadata": {"name": API_SERVICE_NAME},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta2",
            "groupPriorityMinimum": 100,
            "versionPriority": 200,
            "service": {"namespace": namespace, "name": service},
        },
    }


def available(kube: Kube) -> bool:
    """Whether the APIService of the metrics API is Available."""
    there = kube.get(API_SERVICE, "", API_SERVICE_NAME) or {}
    conditions = there.get("status", {}).get("conditions", ())
    return any(c["type"] == "Available" and c["status"] == "True" for c in conditions)


def get_metrics(kube: Kube, path: str, **query: str) -> Any:
    """`kubectl get --raw` of a path of the metrics API."""
    parameters = "&".join(f"{name}={urllib.parse.quote(value)}" for name, value in query.items())
    return json.loads(kube.run("get", f"--raw={ROOT}{path}{'?' + parameters if parameters else ''}"))


def numbers(answer: Mapping[str, Any]) -> dict[str, str]:
    """The values of an answer, by the names of the objects."""
    return {item["describedObject"]["name"]: item["value"] for item in answer["items"]}


def pod(name: str, revision: str, service: str, model: str = "m") -> Object:
    """Return a serving pod's manifest; no scheduler binds it."""
    labels = {names.LABEL_SERVICE: service, names.LABEL_REVISION: revision, LABEL_NAME: "triton"}
    return {
        "apiVersion": "v1",
        "kind": POD.name,
        "metadata": {"name": name, "labels": labels, "annotations": {ANNOTATION_MODEL: model}},
        "spec": {"containers": [{"name": "triton", "image": "none"}], "schedulerName": "none"},
    }


def status(ip: str, *, ready: bool = True) -> str:
    """Return the patch by which a pod runs at an address."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return json.dumps({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}})


def start_pod(kube: Kube, namespace: str, name: str, ip: str, *, ready: bool = True) -> None:
    """Set a pod's status to running at an address, as a kubelet does."""
    kube.run(
        "patch", "pod", name, f"--namespace={namespace}", "--subresource=status", "--type=merge",
        f"--patch={status(ip, ready=ready)}",
    )  # fmt: skip
