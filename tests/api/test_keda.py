"""The operator beside KEDA's own CRD on a real API server: what it lacks, what it makes, and that it then rests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, SCALED_OBJECT
from tests.api.operator import Audit, Operator, are_ready, condition, isvc
from tests.cluster import Cluster, binaries
from tests.support.kube import Kube
from tests.support.wait import TIMEOUT, until

PROMETHEUS = "http://prometheus.monitoring.svc:9090"
TRIGGER = {"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *"}}


@pytest.fixture
def no_keda(kube: Kube) -> Iterator[list[str]]:
    """A cluster without KEDA; return kubectl's arguments that bring its CRDs, which go again in the end."""
    files = [f"--filename={path}" for path in binaries.manifests("keda")]
    kube.run("delete", "--ignore-not-found", *files)
    yield files
    kube.run("delete", "--ignore-not-found", *files)


def test_a_service_in_a_cluster_without_keda_reports_it_and_recovers_when_keda_is_installed(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, no_keda: list[str]
) -> None:
    def ready() -> dict[str, str]:
        return condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "Ready")

    autoscaling = {"requestsPerSecond": 10, "triggers": [TRIGGER], "behavior": {"scaleDown": {"policies": []}}}
    with Operator(cluster, log, CONCH_METRICS_API="keda", CONCH_PROMETHEUS=PROMETHEUS):
        kube.apply(isvc(minReplicas=0, maxReplicas=3, autoscaling=autoscaling), namespace)
        until(lambda: ready().get("reason") == "KedaMissing", "the status has what is missing", seen=ready)
        assert "install KEDA" in ready()["message"]
        kube.run("apply", "--server-side", "--field-manager=local-cluster", *no_keda)
        kube.run("wait", "--for=condition=Established", *no_keda, TIMEOUT)
        until(are_ready(kube, namespace), "the service is Ready")

        def may_sleep() -> bool:
            [driven] = kube.list(SCALED_OBJECT, namespace)
            return bool(driven["spec"]["minReplicaCount"] == 0)

        until(may_sleep, "it has served, and may sleep")
        [driven] = kube.list(SCALED_OBJECT, namespace)
        assert [trigger["type"] for trigger in driven["spec"]["triggers"]] == ["cron", "prometheus"]
        revision = driven["metadata"]["name"]

        audit = Audit(cluster)
        scale = [f"deployment/{revision}", f"--namespace={namespace}", "--replicas=0"]
        kube.run("scale", *scale)  # what KEDA does

        def asleep() -> bool:
            return ready().get("reason") == "ScaledToZero"

        until(asleep, "the status has ScaledToZero", seen=ready)
        assert (kube.get(DEPLOYMENT, namespace, revision) or {})["spec"]["replicas"] == 0
        assert {write.split()[1] for write in audit.writes(namespace)} <= {"inferenceservices/status", "events"}
