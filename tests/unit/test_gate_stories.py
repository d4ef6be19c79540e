"""Stories of candidates with gates: their verdicts decide whether the candidate gets more requests."""

from typing import Any

import pytest

from conch.api import RolloutStatus
from conch.api.kinds import SERVICE, Ref
from conch.decide import build_measurement_request
from conch.observe.measured import Answer, History, Measured
from conch_contract import names
from tests.unit.simulation import KEY, Cluster, build_manifest, measure, read_weights, start_revision

GATEWAY = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
STEPS = [{"weight": 10}, {"analysis": "1m"}, {"weight": 50}, {"analysis": "1m"}]
SUCCESS = {"successRate": {"min": "99%"}}
LATENCY = {"latency": {"max": "50ms"}}


def start_candidate(*gates: dict[str, Any], **rollout: Any) -> tuple[Cluster, str, str]:
    """Start a candidate at its first weight; return the names of both revisions too."""
    spec = {"steps": STEPS, "analysis": list(gates), "progressDeadline": "5m", **rollout}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=spec, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert build_measurement_request(cluster.snapshot()).models == {new: "magika"}, (
        "counters are read before the first request"
    )
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 90, new: 10}
    return cluster, stable, new


def read_rollout(cluster: Cluster) -> RolloutStatus:
    found = cluster.status.rollout
    assert found is not None
    return found


def test_a_good_candidate_passes_its_analyses() -> None:
    cluster, _, new = start_candidate(SUCCESS, LATENCY)
    measure(cluster, 50, requests=600)
    assert (read_rollout(cluster).reason, read_rollout(cluster).weight) == ("Analysis", 10)
    assert [(gate.name, gate.verdict, gate.value) for gate in read_rollout(cluster).gates] == [
        ("success-rate", "Passed", "100%"),
        ("latency-mean", "Passed", "10ms"),
    ]
    measure(cluster, 10, requests=100)
    start_revision(cluster, new)
    assert read_rollout(cluster).weight == 50
    measure(cluster, 60, requests=600)
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert cluster.status.rollout is None


@pytest.mark.parametrize(
    ("gate", "behaviour", "words"),
    [
        (
            SUCCESS,
            {"failures": 60},
            "Gate success-rate: Success rate 90% over 100 requests is below the minimum",
        ),
        (LATENCY, {"latency_ms": 80}, "Gate latency-mean: Mean latency 80ms over 100 requests"),
    ],
    ids=["errors", "slow"],
)
def test_a_bad_candidate_is_given_up_for_its_own_reason(gate: Any, behaviour: Any, words: str) -> None:
    cluster, stable, _ = start_candidate(gate)
    measure(cluster, 60, requests=600, **behaviour)
    assert read_weights(cluster) == {stable: 100}
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "AnalysisFailed")
    assert words in read_rollout(cluster).message
    assert read_rollout(cluster).gates[0].verdict == "Failed", "the verdict stays in the status"
    assert [event.reason for event in cluster.story][-2:] == ["RolledBack", "AnalysisFailed"]


def test_a_service_without_a_gateway_evaluates_all_requests_and_rolls_back() -> None:
    steps = [{"weight": 100}, {"analysis": "1m"}]
    spec = {"steps": steps, "analysis": [SUCCESS]}
    for failures in (0, 300):
        cluster = Cluster(build_manifest(minReplicas=2, rollout=spec))
        cluster.reconcile()
        stable = cluster.decision().wanted
        cluster.start_pods(stable)
        cluster.settle()
        cluster.edit(uri="s3://models/v2")
        cluster.settle()
        new = cluster.decision().wanted
        cluster.start_pods(new)
        cluster.settle()
        assert find_selected_revision(cluster) == new
        assert cluster.status.stable == stable, "a rollback is still possible"
        measure(cluster, 70, requests=700, failures=failures)
        assert find_selected_revision(cluster) == cluster.status.stable == (stable if failures else new)


def find_selected_revision(cluster: Cluster) -> str:
    """Return the revision that the root Service selects."""
    name: str = cluster.objects[Ref(SERVICE, KEY.name)]["spec"]["selector"][names.LABEL_REVISION]
    return name


def test_a_candidate_that_is_slow_only_at_half_of_the_requests_fails_at_that_step() -> None:
    cluster, stable, new = start_candidate(LATENCY)
    measure(cluster, 60, requests=600)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    measure(cluster, 20, requests=600, latency_ms=80)
    assert read_weights(cluster) == {stable: 100}


def test_no_requests_are_inconclusive_hold_the_rollout_and_end_it_in_the_end() -> None:
    cluster, stable, new = start_candidate(SUCCESS)
    measure(cluster, 120)
    assert (read_rollout(cluster).reason, read_rollout(cluster).weight) == ("Inconclusive", 10)
    assert read_weights(cluster) == {stable: 90, new: 10}
    measure(cluster, 300)
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Failed", "Inconclusive")
    assert "Waits for 20 requests" in read_rollout(cluster).message


def test_a_failure_that_is_tolerated_only_costs_time() -> None:
    cluster, _, new = start_candidate({**SUCCESS, "failureLimit": 1})
    measure(cluster, 10, requests=100, failures=50)
    assert read_rollout(cluster).gates[0].verdict == "Inconclusive"
    measure(cluster, 60, requests=600)
    start_revision(cluster, new)
    assert read_rollout(cluster).weight == 50


def test_prometheus_queries_name_the_candidate_and_an_error_never_passes() -> None:
    gate = {"prometheus": {"server": "http://prometheus:9090", "query": 'e{r="{{revision}}"}', "max": "0.01"}}
    cluster, _, new = start_candidate(gate)
    [query] = build_measurement_request(cluster.snapshot()).queries.values()
    assert query.query == f'e{{r="{new}"}}'
    cluster.measured = Measured(History(), {"prometheus": Answer(cluster.now + 5, error="parse error")})
    cluster.now += 61
    cluster.settle()
    assert read_rollout(cluster).reason == "Inconclusive"
    assert "Parse error" in read_rollout(cluster).message
    cluster.measured = Measured(History(), {"prometheus": Answer(cluster.now + 5, 0.001)})
    cluster.now += 10
    start_revision(cluster, new)
    assert read_rollout(cluster).weight == 50


def test_a_promotion_past_a_gate_that_paused_the_rollout_evaluates_the_next_step_from_the_start() -> None:
    cluster, stable, new = start_candidate(SUCCESS, onFailure="Pause")
    measure(cluster, 20, requests=200, failures=100)
    assert (read_rollout(cluster).phase, read_rollout(cluster).reason) == ("Paused", "PausedOnFailure")
    assert read_weights(cluster) == {stable: 90, new: 10}
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}/1")
    start_revision(cluster, new)
    assert read_rollout(cluster).weight == 50
    assert read_rollout(cluster).gates[0].verdict != "Failed"
