"""The operator as a process against a real API server, and what the audit log saw of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from conch.api.child_kinds import CHILDREN
from conch.api.kinds import INFERENCE_SERVICE, NAMESPACE, Ref
from conch.api.names import CRD_NAME, GROUP, VERSION
from conch_contract import names
from tests.cluster import Cluster
from tests.support.forked import Forked
from tests.support.kube import Kube, KubectlError, Object
from tests.support.ports import free_port
from tests.support.relay import Relay
from tests.support.wait import TIMEOUT, until

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Operator:
    """One operator process. A context manager: it is ended in peace when the test is over."""

    def __init__(self, cluster: Cluster, log: Path, **env: str) -> None:
        self._cluster = cluster
        self._log = log
        self._env = env
        self.metrics_port = free_port()
        self.probe_port = free_port()
        self.process: Forked | subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; it is up when it watches, or stands by."""
        self.process = Forked(["conch"], self._log, self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the process."""
        return {
            **os.environ,
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "CONCH_SERVING_IMAGE": "conch/serving:test",
            "CONCH_LOG_FORMAT": "console",
            "CONCH_PROBE_PORT": str(self.probe_port),
            "CONCH_METRICS_PORT": str(self.metrics_port),
            **self._env,
        }

    def stop(self) -> None:
        """End the process in peace."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
            # One that has only begun to start knows no better than to end at once.
            assert self.process.wait(30) in {0, -signal.SIGTERM}, self.log()[-3000:]

    def wait(self, seconds: float) -> int:
        """Wait for the process to end by itself; return its exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal, unless it has ended."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def readiness(self) -> tuple[int, str]:
        """Return the status and the text of /readyz; 0: nothing listens."""
        return readiness(self.probe_port)

    def log(self) -> str:
        """Return the text of the log file so far."""
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
        for entry in filter(is_a_write, self.calls()):
            ref = entry.get("objectRef", {})
            if namespace is None or ref.get("namespace") == namespace:
                resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
                found.append(f"{entry['verb']} {resource} {ref.get('name', '')}")
        return found


def read_writes(audit_log: Path, namespace: str) -> Iterator[str]:
    """Yield the writes of all clients in a namespace: when, by whom, what, and the status code of the answer."""
    with audit_log.open("rb") as log:
        for line in log:
            if namespace.encode() in line and line.endswith(b"\n"):
                entry = json.loads(line)
                ref = entry.get("objectRef", {})
                if entry["verb"] in WRITES and ref.get("namespace") == namespace:
                    resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
                    agent = entry.get("userAgent", "").partition(" ")[0]
                    code = entry.get("responseStatus", {}).get("code")
                    moment = entry["requestReceivedTimestamp"]
                    yield f"{moment} {agent} {entry['verb']} {resource} {ref.get('name', '')} {code}"


def readiness(probe_port: int) -> tuple[int, str]:
    """Return the status and the text of /readyz; 0: nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probe_port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def is_a_write(call: Mapping[str, Any]) -> bool:
    """Whether an entry of the audit log is a write, but for those of the election."""
    return call["verb"] in WRITES and call.get("objectRef", {}).get("resource") != "leases"


def install_crd(kube: Kube, repository: Path = Path()) -> None:
    """Install the CRD of the repository, or of a clone of it, and wait until services can be listed."""
    kube.run("apply", "--server-side", "--force-conflicts", f"--filename={repository / 'crds'}")

    def established() -> bool:
        """Whether it is served for good. `kubectl wait` fails while there are no conditions."""
        body = json.loads(kube.run("get", "crd", CRD_NAME, "--output=json"))
        conditions = body.get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    until(established, "the CRD is established")

    def lists() -> bool:
        """Whether services can be listed: for a moment after its CRD has changed a storage only answers 429."""
        try:
            kube.list(INFERENCE_SERVICE)
        except KubectlError:
            return False
        return True

    until(lists, "the API server serves the CRD that was just applied")


def remove_crd(kube: Kube) -> None:
    """Remove the CRD; return when the API server serves its group no more.

    It takes the group's APIService away some time after its last CRD, and a CRD that is installed meanwhile is served
    at first, and then goes with it for a moment.
    """
    kube.run("delete", "crd", CRD_NAME, "--wait=true")
    registered = ("get", "apiservices", f"{VERSION}.{GROUP}", "--ignore-not-found", "--output=name")
    until(lambda: not kube.run(*registered), "the API server serves the group no more")


def kubeconfig_of(cluster: Cluster, kube: Kube, namespace: str, account: str) -> dict[str, Any]:
    """Make a service account; return a kubeconfig with a token of it and one context, named like the account."""
    here = f"--namespace={namespace}"
    kube.run("create", "serviceaccount", account, here)
    [known] = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"]
    context = {"cluster": known["name"], "user": account, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [known],
        "users": [{"name": account, "user": {"token": kube.run("create", "token", account, here).strip()}}],
        "contexts": [{"name": account, "context": context}],
    }


def relayed(cluster: Cluster, directory: Path) -> tuple[Relay, Path]:
    """Return a relay to the API server, which the caller closes, and a kubeconfig that goes through it."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    [known] = config["clusters"]
    address = urlsplit(known["cluster"]["server"])
    relay = Relay(address.port or 443, host=str(address.hostname))
    known["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
    file = directory / "relayed.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return relay, file


@contextlib.contextmanager
def another_namespace(kube: Kube, name: str) -> Iterator[str]:
    """A namespace that is gone in the end, with all that is in it: its objects burden every later list."""
    kube.create(NAMESPACE, {"metadata": {"name": name}})
    try:
        yield name
    finally:
        kube.run("delete", "namespace", name, "--wait=true", TIMEOUT)


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


def are_ready(kube: Kube, namespace: str, count: int = 1) -> Callable[[], bool]:
    """Return a look: whether so many services are Ready at their latest generation."""

    def look() -> bool:
        ready = [
            service
            for service in kube.list(INFERENCE_SERVICE, namespace)
            if condition(service, "Ready").get("status") == "True"
            and service["status"].get("observedGeneration") == service["metadata"]["generation"]
        ]
        return len(ready) >= count

    return look


def children(kube: Kube, namespace: str, service: str = "") -> dict[Ref, Object]:
    """Return what the operator made for one service, or for all of a namespace."""
    selector = f"{names.LABEL_SERVICE}={service}" if service else names.LABEL_SERVICE
    found = ((kind, body) for kind in CHILDREN for body in kube.list(kind, namespace, selector))
    # A Deployment's own children and a Service's endpoints carry its labels too.
    return {
        Ref(kind, body["metadata"]["name"]): body
        for kind, body in found
        if body["metadata"]["ownerReferences"][0]["kind"] == INFERENCE_SERVICE.name
    }


def essence(kube: Kube, namespace: str) -> dict[Ref, Object]:
    """Return the content of our children, without what differs from one run to the next."""
    found = {}
    for ref, body in children(kube, namespace).items():
        content = {key: value for key, value in body.items() if key in {"spec", "data", "revision"}}
        for transient in ("clusterIP", "clusterIPs"):
            content.get("spec", {}).pop(transient, None)
        found[ref] = {"labels": body["metadata"]["labels"], **content}
    return found
