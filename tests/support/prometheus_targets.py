"""Tell Prometheus which pods to read: Debian's Prometheus is built without the discovery of Kubernetes.

Runs beside the server, in the same pod, and keeps a file of targets (Prometheus' file_sd_config) up to date:
every pod that runs and has a port named `metrics`, with its labels, its namespace and its name.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PORT_NAME = "metrics"
PATH = "prometheus.io/path"  # an annotation; without it the path is /metrics

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PODS = "https://kubernetes.default.svc/api/v1/pods?fieldSelector=status.phase%3DRunning"
_SECONDS = 1.0


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the target groups of all pods; `app.kubernetes.io/name` becomes `app_kubernetes_io_name`."""
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                **{re.sub(r"\W", "_", key): value for key, value in pod["metadata"].get("labels", {}).items()},
                "namespace": pod["metadata"]["namespace"],
                "pod": pod["metadata"]["name"],
                **({"__metrics_path__": path} if (path := pod["metadata"].get("annotations", {}).get(PATH)) else {}),
            },
        }
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == PORT_NAME and pod["status"].get("podIP")
    ]


def _pods(context: ssl.SSLContext) -> list[dict[str, Any]]:
    token = (_ACCOUNT / "token").read_text()
    request = urllib.request.Request(_PODS, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310  https, fixed
        found: list[dict[str, Any]] = json.load(answer)["items"]
    return found


def main(file: Path) -> None:
    """Look every second, for ever; Prometheus must never see half a file."""
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    while True:
        try:
            text = json.dumps(targets(_pods(context)))
        except OSError as error:
            print(f"no pods: {error}", flush=True)  # noqa: T201  a container's log
        else:
            if not file.exists() or file.read_text() != text:
                scratch = file.with_suffix(".new")
                scratch.write_text(text)
                scratch.rename(file)
        time.sleep(_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
