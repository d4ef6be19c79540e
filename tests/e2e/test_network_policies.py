"""The chart's NetworkPolicies where a network plugin enforces them: what is needed is open, and all else is closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api.kinds import POD
from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support import network_policies
from tests.support.kube import KubectlError, Object
from tests.support.place import CHART, RELEASE, SYSTEM, Place
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.long]  # the whole cluster's Conch is installed anew

OUTSIDER: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "outsider"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "outsider",
                "image": "conch/tools:dev",
                "command": ["sleep", "infinity"],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


@pytest.fixture
def guarded(place: Place, namespace: str, tmp_path: Path) -> Iterator[str]:
    """A namespace whose serving pods have the chart's NetworkPolicy, on nodes that enforce it."""
    assert place.local is not None
    with network_policies.enforced(place.local, tmp_path):
        policies = json.dumps({"servingNamespaces": [namespace]})
        upgrade = ("upgrade", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--reset-then-reuse-values")
        try:
            place.helm(*upgrade, f"--set-json=networkPolicies={policies}")
            yield namespace
        finally:
            place.install()


def answers(place: Place, namespace: str, address: str, port: int, path: str) -> bool:
    """Return whether a pod that is not Conch's gets an answer there."""
    host = f"[{address}]" if ":" in address else address
    curl = ("curl", "--silent", "--output", "/dev/null", "--max-time", "2", f"http://{host}:{port}{path}")
    try:
        place.kube.run("exec", "outsider", f"--namespace={namespace}", "--", *curl)
    except KubectlError:
        return False
    return True


def test_other_pods_get_inference_and_nothing_else_while_conch_sees_what_it_needs(place: Place, guarded: str) -> None:
    service = Service(place.kube, guarded, "loaded")
    place.kube.apply([OUTSIDER], guarded)
    place.kube.apply(manifest("loaded"), guarded)
    service.until_ready()
    place.kube.run("wait", "pod/outsider", f"--namespace={guarded}", "--for=condition=Ready", "--timeout=60s")
    [pod] = service.pods()
    address = pod["status"]["podIP"]
    own = ((names.METRICS_PORT, "/metrics"), (names.AGENT_PORT, names.STATUS_PATH))
    until(lambda: not any(answers(place, guarded, address, *port) for port in own), "Conch's ports are closed")
    assert answers(place, guarded, address, names.HTTP_PORT, "/v2/health/ready"), "inference is open"
    hosts = [each["status"]["podIP"] for each in place.kube.list(POD, SYSTEM)]
    assert len(hosts) >= 3, "two operators and the metrics API"
    until(
        lambda: not any(answers(place, guarded, host, 8080, "/healthz") for host in hosts),
        "the probes of Conch are the kubelet's",
    )
    assert all(answers(place, guarded, host, 9090, "/metrics") for host in hosts), "where no peers are named"
    # The operator reads the agent of each new revision, and the metrics API reads Triton.
    service.patch({"predictor": {"triton": {"instanceGroups": [{"count": 2}]}}})
    service.until_ready()
    path = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{guarded}/pods/*/triton_pending_requests"
    until(lambda: json.loads(place.kube.run("get", "--raw", path))["items"], "the metrics API answers")
