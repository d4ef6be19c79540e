"""One row for each kind that a service owns."""

from typing import Any

import pytest

from conch.api.child_kinds import CHILD_KINDS, ChildKind, child_kind
from conch.api.kinds import LEASE, REPLICA_SET
from conch.decide import decide
from conch.desire import PodDefaults, desire
from conch.plan import plan
from conch.plan.actions import list_references
from conch_contract import names
from tests.unit.simulation import Cluster, build_manifest


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
