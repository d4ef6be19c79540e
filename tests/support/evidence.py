"""Evidence of a service that fails: objects, events and logs."""

from __future__ import annotations

from collections.abc import Iterable

from conch.api.kinds import POD
from tests.support.kube import Kube, KubectlError
from tests.support.place import OPERATOR, SYSTEM

_USUAL = ("PodInitializing", "ContainerCreating")
_TAIL = "--tail=40"


def collect(kube: Kube, namespaces: Iterable[str]) -> list[tuple[str, str]]:
    """Return titles and texts: of each namespace the services, events, pods and their logs; the operator's log."""
    shown = [section for namespace in namespaces for section in _of_namespace(kube, namespace)]
    return [*shown, ("log of the operator", operator_log(kube, 300))]


def _of_namespace(kube: Kube, namespace: str) -> list[tuple[str, str]]:
    here = f"--namespace={namespace}"
    shown = [
        (f"InferenceServices of {namespace}", _output(kube, "get", "isvc", here, "--output=yaml")),
        ("events", _output(kube, "get", "events", here, "--sort-by=.lastTimestamp")),
        ("children", _output(kube, "get", "deploy,rs,svc,hpa,pods,cm,controllerrevisions", here, "--output=wide")),
    ]
    pods = _output(kube, "get", "pods", here, "--output=name").split()
    logs = (kube_logs(kube, namespace, pod) for pod in pods if pod.startswith("pod/"))
    return [*shown, *((f"log of {pod}", text) for pod, text in zip(pods, logs, strict=False))]


def waiting_containers(kube: Kube, *namespaces: str) -> list[str]:
    """Return a line for each container that waits: its pod, why, and what to do about an image that is missing."""
    lines = []
    for namespace in namespaces:
        for pod in kube.list(POD, namespace):
            status = pod.get("status", {})
            for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
                reason = container.get("state", {}).get("waiting", {}).get("reason", "")
                if reason and reason not in _USUAL:
                    place = f"pod {namespace}/{pod['metadata']['name']}, container {container['name']}"
                    lines.append(f"{place}: {reason} (image {container['image']})")
                if "Image" in reason:
                    lines.append("  load the image onto the nodes: docs/quickstart.md, section Images")
    return lines


def kube_logs(kube: Kube, namespace: str, pod: str) -> str:
    """Return the last lines of all containers of a pod."""
    return _output(kube, "logs", pod, f"--namespace={namespace}", "--all-containers", "--prefix", _TAIL)


def operator_log(kube: Kube, lines: int) -> str:
    """Return the last lines of each of the operator's pods."""
    selector = "app.kubernetes.io/instance=conch"
    return _output(kube, "logs", f"--selector={selector}", f"--namespace={SYSTEM}", f"--tail={lines}", "--prefix") or (
        f"deployment/{OPERATOR} has no pods"
    )


def _output(kube: Kube, *arguments: str) -> str:
    try:
        return kube.run(*arguments)
    except KubectlError as error:
        return str(error)
