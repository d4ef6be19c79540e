"""The Service by which pods know each other: it is there as long as pods have its name."""

from __future__ import annotations

import pytest

from conch.api.kinds import SERVICE, Ref
from tests.unit.simulation import KEY, Cluster, build_manifest, start_revision

PEERS = Ref(SERVICE, f"{KEY.name}--peers")
CLAIM = {"claimName": "shared"}
TRAFFIC = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
STEPS = {"steps": [{"weight": 50}, {"pause": "1h"}]}


@pytest.mark.parametrize("successor", [CLAIM, None])
def test_pods_of_a_revision_know_each_other_until_its_successor_has_taken_over(
    successor: dict[str, str] | None,
) -> None:
    cluster = Cluster(build_manifest(cache={"peers": True}, rollout=STEPS, traffic=TRAFFIC))
    cluster.settle()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    assert PEERS in cluster.objects
    cluster.edit(cache=successor)
    cluster.settle()
    candidate = cluster.decision().wanted
    start_revision(cluster, candidate)
    assert cluster.status.stable == stable
    assert PEERS in cluster.objects, "the stable revision may get pods"
    for _ in range(5):
        cluster.now += 3600
        start_revision(cluster, candidate)
    assert cluster.status.stable == candidate
    assert PEERS not in cluster.objects
