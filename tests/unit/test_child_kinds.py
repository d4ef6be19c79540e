"""One row for each kind that a service owns."""

from typing import Any

import pytest

from conch.api.child_kinds import CHILD_KINDS, ChildKind, child_kind
from conch.api.kinds import AUTOSCALER, LEASE, REPLICA_SET
from conch.api.metrics import MetricsApi
from conch.decide import decide
from conch.desire import PodDefaults, desire
from conch.plan import plan
from conch.plan.actions import list_references
from conch_contract import names
from tests.unit.simulation import Cluster, build_manifest, start_revision

ENVOY_GATEWAY = "gateway.envoyproxy.io/gatewayclass-controller"
CPU: dict[str, Any] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def test_an_object_of_a_kind_without_a_row_is_an_error() -> None:
    cluster = Cluster(build_manifest())
    snapshot = cluster.snapshot()
    decisions = decide(snapshot)
    lease = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": {"name": "a", "namespace": "demo"}}
    objects = [*desire(snapshot, decisions, PodDefaults("conch/serving:1")), lease]
    with pytest.raises(KeyError, match=r"Lease has no row in conch\.api\.child_kinds"):
        plan(snapshot, decisions, objects)
    with pytest.raises(KeyError, match="ReplicaSet has no row"):
        child_kind(REPLICA_SET)


@pytest.mark.parametrize("child", CHILD_KINDS, ids=lambda child: str(child.kind.name))
def test_a_child_refers_to_children_of_lower_steps_alone(child: ChildKind) -> None:
    backend: dict[str, Any] = {"name": "m-new", "weight": 1}
    body = {
        "apiVersion": child.kind.api_version,
        "kind": child.kind.name,
        "metadata": {"name": "m", "labels": {names.LABEL_SERVICE: "m", names.LABEL_REVISION: "m-new"}},
        "spec": {"rules": [{"matches": [{"path": {"value": "/v2"}}], "backendRefs": [backend]}]},
    }
    assert all(child_kind(ref.kind).step < child.step for ref in list_references(body))


@pytest.mark.parametrize("metrics_api", ["builtin", "keda"])
def test_each_kind_is_built_for_a_service_that_has_every_feature(metrics_api: MetricsApi) -> None:
    traffic: dict[str, Any] = {"gateways": [{"name": "public"}], "consistentHash": {"header": "x-sequence"}}
    scaling: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 3, "autoscaling": {"metrics": [CPU]}}
    cluster = Cluster(build_manifest(traffic=traffic, warmup={}, **scaling), metrics_api=metrics_api)
    cluster.controller = ENVOY_GATEWAY
    cluster.put_class()
    cluster.settle()
    start_revision(cluster, cluster.decision().wanted)
    cluster.edit(uri="s3://models/new")
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    built = {ref.kind for ref in cluster.objects}
    scalers = {child.kind for child in CHILD_KINDS if child.needs_keda} if metrics_api == "builtin" else {AUTOSCALER}
    assert {child.kind for child in CHILD_KINDS} - scalers <= built
