"""The default placement of pods, and the precedence of the fields that a user sets."""

from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import DEPLOYMENT, Ref
from conch.desire.placement import LOST_NODE_TAINTS, LOST_SECONDS, build_placement
from conch_contract import names
from tests.unit.simulation import Cluster, build_manifest

REVISION = "magika-1"
HARD = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
NODES: dict[str, Any] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
APART = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "rack"}]}}


def place(**pod: Any) -> dict[str, Any]:
    return build_placement(InferenceService.model_validate(build_manifest(pod=pod)), REVISION)


def test_the_pods_of_a_revision_spread_by_themselves_over_nodes_and_zones() -> None:
    mine = {"matchLabels": {names.LABEL_SERVICE: "magika", names.LABEL_WORKLOAD: REVISION}}
    found = place()
    [nodes] = found["topologySpreadConstraints"]
    [zones] = found["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert nodes == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": mine,
    }
    assert zones["podAffinityTerm"] == {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": mine}


@pytest.mark.parametrize("spread", [[HARD], []])
def test_a_spread_that_the_user_gives_is_the_whole_one(spread: list[Any]) -> None:
    found = place(topologySpreadConstraints=spread)
    assert found.get("topologySpreadConstraints", []) == spread
    assert "affinity" not in found


def test_the_preference_for_zones_is_kept_beside_an_affinity_of_nodes_and_left_out_beside_one_of_pods() -> None:
    assert place(affinity=NODES)["affinity"] == {**place()["affinity"], **NODES}
    assert place(affinity=APART)["affinity"] == APART
    assert place(affinity=APART)["topologySpreadConstraints"] == place()["topologySpreadConstraints"]


def test_an_empty_spread_makes_another_revision_than_none() -> None:
    pods: list[dict[str, Any]] = [{}, {"topologySpreadConstraints": []}]
    clusters = [Cluster(build_manifest(pod=pod)) for pod in pods]
    for cluster in clusters:
        cluster.reconcile()
    first, second = (cluster.decision().wanted for cluster in clusters)
    assert first != second
    spec = clusters[1].objects[Ref(DEPLOYMENT, second)]["spec"]["template"]["spec"]
    assert "topologySpreadConstraints" not in spec


@pytest.mark.parametrize(
    ("tolerations", "ours"),
    [
        ([], list(LOST_NODE_TAINTS)),
        ([GPU], list(LOST_NODE_TAINTS)),
        (
            [{"key": LOST_NODE_TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            [LOST_NODE_TAINTS[1]],
        ),
        ([{"key": LOST_NODE_TAINTS[1], "operator": "Exists"}], [LOST_NODE_TAINTS[0]]),
        ([{"key": LOST_NODE_TAINTS[1], "operator": "Exists", "effect": "NoSchedule"}], list(LOST_NODE_TAINTS)),
        ([{"operator": "Exists", "effect": "NoExecute"}], []),
        ([{"operator": "Exists"}], []),
    ],
)
def test_a_lost_node_is_tolerated_for_a_minute_unless_the_user_sets_its_toleration(
    tolerations: list[Any], ours: list[str]
) -> None:
    found = place(tolerations=tolerations).get("tolerations", [])
    assert found[: len(tolerations)] == tolerations
    assert found[len(tolerations) :] == [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_SECONDS} for key in ours
    ]
