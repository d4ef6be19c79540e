"""Write the list of pods for Prometheus to read: Debian's Prometheus is built without the discovery of Kubernetes.

Runs beside the server, in the same pod, and keeps a file of targets (Prometheus' file_sd_config) up to date:
every pod that runs and has a port named `metrics`, with its labels, its namespace and its name.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PORT_NAME = "metrics"
PATH = "prometheus.io/path"  # an annotation; without it the path is /metrics

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PODS = "https://kubernetes.default.svc/api/v1/pods?fieldSelector=status.phase%3DRunning"
_WATCH_SECONDS = 300
_RETRY_SECONDS = 1.0


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


def _call(context: ssl.SSLContext, query: str) -> http.client.HTTPResponse:
    token = (_ACCOUNT / "token").read_text()
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(_PODS + query, headers=headers)  # noqa: S310  https, fixed
    found: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310  https, fixed
        request, timeout=_WATCH_SECONDS + 10, context=context
    )
    return found


def _changes(context: ssl.SSLContext) -> Iterator[list[dict[str, Any]]]:
    """Yield all running pods, now and after each change, until the watch ends."""
    with _call(context, "") as answer:
        listed = json.load(answer)
    pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
    yield list(pods.values())
    version = listed["metadata"]["resourceVersion"]
    with _call(context, f"&watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}") as events:
        for line in events:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            uid = event["object"]["metadata"]["uid"]
            if event["type"] == "DELETED":  # or it runs no longer
                pods.pop(uid, None)
            else:
                pods[uid] = event["object"]
            yield list(pods.values())


def main(file: Path) -> None:
    """Write the file anew at each change; Prometheus must never see half a file."""
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    while True:
        try:
            for pods in _changes(context):
                text = json.dumps(targets(pods))
                if not file.exists() or file.read_text() != text:
                    scratch = file.with_suffix(".new")
                    scratch.write_text(text)
                    scratch.rename(file)
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"the watch of pods failed: {error}", flush=True)  # noqa: T201  a container's log
            time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
