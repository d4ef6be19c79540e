"""500 models in one repository: what they cost to start, in memory, in the status and in a reconcile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from conch.api.kinds import LEASE
from conch_contract import names
from tests.serving.onnx_files import multiply
from tests.support import clients
from tests.support.kube import Kube
from tests.support.layouts import X
from tests.support.pipeline import ensemble
from tests.support.place import OPERATOR, SYSTEM, Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

MODELS = 500
LISTED = 32  # models in a status
SECONDS = 900


def read_reconciles(kube: Kube) -> tuple[float, float]:
    """Return the sum of the seconds of the leader's reconciles, and their number."""
    leader = (kube.get(LEASE, SYSTEM, OPERATOR) or {})["spec"]["holderIdentity"]
    text = kube.run("get", f"--raw=/api/v1/namespaces/{SYSTEM}/pods/{leader}:9090/proxy/metrics")
    found = (re.search(rf"^conch_reconcile_seconds_{part} (\S+)$", text, re.MULTILINE) for part in ("sum", "count"))
    seconds, count = (float(match[1]) if match else 0.0 for match in found)
    return seconds, count


def read_memory(kube: Kube, service: Service, container: str) -> float:
    """Return the memory of a pod's container in MiB."""
    [pod] = service.ready_pods()
    place = (f"--container={container}", f"--namespace={service.namespace}")
    text = kube.run("exec", pod["metadata"]["name"], *place, "--", "cat", "/proc/1/status")
    match = re.search(r"^VmRSS:\s+(\d+) kB$", text, re.MULTILINE)
    assert match
    return int(match[1]) / 1024


@pytest.mark.long
@pytest.mark.timeout(2 * SECONDS, func_only=True)
def test_500_models_are_served_and_the_status_stays_small(
    place: Place, namespace: str, bucket: Store, figure: Callable[[str], None]
) -> None:
    """One model, and ensembles of it, of which none has a process of its own."""
    files = {"double/1/model.onnx": multiply(2)}
    files |= {f"m{number:03}/config.pbtxt": ensemble("double") for number in range(1, MODELS)}
    bucket.upload("s3://models/many", files)
    model = {
        "modelFormat": {"name": "repository"},
        "storageUri": "s3://models/many",
        "storage": {"secretRef": {"name": "s3"}},
    }
    body = {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "many"},
        "spec": {"predictor": {"entry": "m001", "model": model}, "rollout": {"progressDeadline": f"{SECONDS}s"}},
    }
    before = read_reconciles(place.kube)
    place.kube.apply(body, namespace)
    service = Service(place.kube, namespace, "many")
    [pod] = until(service.pods, "the service has a pod")
    until(service.ready_pods, "the pod is ready", SECONDS)
    status = service.until_ready()
    after = read_reconciles(place.kube)
    [revision] = status["revisions"]
    assert len(revision["models"]) == LISTED
    assert revision["modelCounts"]["total"] == MODELS
    conditions = {each["type"]: each["lastTransitionTime"] for each in service.ready_pods()[0]["status"]["conditions"]}
    figure(f"{MODELS} models: pod created {pod['metadata']['creationTimestamp']}, ready {conditions['Ready']}")
    memories = {
        name: read_memory(place.kube, service, name) for name in (names.AGENT_CONTAINER, names.TRITON_CONTAINER)
    }
    figure(f"memory in MiB: {', '.join(f'{name} {size:.0f}' for name, size in memories.items())}")
    figure(f"bytes of the status: {len(json.dumps(status))}")
    seconds, count = after[0] - before[0], after[1] - before[1]
    figure(f"reconciles: {count:.0f}, {1000 * seconds / max(count, 1):.0f} ms each")
    with place.reach(namespace, "many", names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        for name in ("m001", "m250", f"m{MODELS - 1}"):
            assert (clients.infer_http(http, name, {"x": X})["y"] == 2 * X).all()
            assert (clients.infer_grpc(grpc, name, {"x": X})["y"] == 2 * X).all()
