"""Stories of progressive delivery in the pure packages: weights, capacity, pauses, failures, requests of users."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from conch.api import Rollout, StepInForce
from conch.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE, SERVICE, Ref
from conch.api.names import ANNOTATION_STABLE
from conch.decide.rollout.steps import with_steps
from conch.decide.state import RolloutState
from conch.decide.strategies import choose_strategy
from conch_contract import ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest, build_report, read_weights, start_revision

ROOT = Ref(SERVICE, KEY.name)
GATEWAY = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
STEPS = [{"weight": 5}, {"pause": "5m"}, {"weight": 50}, {"pause": "Manual"}, {"weight": 100}]


def start_behind_gateway(
    steps: list[dict[str, Any]] | None = None, replicas: int = 4, **rollout: Any
) -> tuple[Cluster, str]:
    """Start a service behind a gateway; return the name of its revision too."""
    spec = {"steps": STEPS if steps is None else steps, **rollout}
    cluster = Cluster(build_manifest(minReplicas=replicas, rollout=spec, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster, stable


def change(cluster: Cluster, uri: str = "s3://models/v2") -> str:
    """Change the model. Return the candidate's name."""
    cluster.edit(uri=uri)
    cluster.settle()
    return cluster.decision().wanted


def read_replicas(cluster: Cluster, revision: str) -> int:
    """Return spec.replicas of a revision's Deployment; 0 without one."""
    found = cluster.objects.get(Ref(DEPLOYMENT, revision))
    return found["spec"]["replicas"] if found else 0


def read_reason(cluster: Cluster) -> str:
    rollout = cluster.status.rollout
    return rollout.reason if rollout else ""


def test_a_good_candidate_goes_by_its_steps_and_serves_in_the_end() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    assert read_weights(cluster) == {stable: 100}
    assert (read_reason(cluster), read_replicas(cluster, new)) == ("MinimumReplicasUnavailable", 1)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}
    assert (read_reason(cluster), cluster.decision().wait) == ("Paused", 300.0)
    assert (cluster.status.stable, cluster.status.candidate, cluster.status.weight) == (stable, new, 5)
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == stable

    cluster.now += 300
    cluster.settle()
    assert read_weights(cluster) == {stable: 95, new: 5}, "the weight waits for the pods"
    assert read_replicas(cluster, new) == 2
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert read_replicas(cluster, stable) == 4, "the stable one keeps its capacity"
    assert read_reason(cluster) == "WaitsForPromotion"
    cluster.now += 86_400
    cluster.settle()
    assert read_weights(cluster) == {stable: 50, new: 50}, "a manual pause has no deadline"

    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}/3")
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == new
    assert read_replicas(cluster, stable) == 0
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.status.rollout is None
    assert [event.reason for event in cluster.story if event.action in {"Shift", "Pause", "Promote"}] == [
        "WeightChanged",
        "Paused",
        "WeightChanged",
        "WaitsForPromotion",
        "WeightChanged",
        "Promoted",
    ]


def test_a_clock_that_was_set_back_by_an_hour_restarts_only_the_pause() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    cluster.now -= 3600
    cluster.settle()
    assert (read_reason(cluster), cluster.decision().wait) == ("Paused", 300.0)
    cluster.now += 100
    cluster.settle()
    assert cluster.decision().wait == 200.0
    cluster.now += 200
    cluster.settle()
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}


@pytest.mark.parametrize("field", ["unavailableSince", "stableUnavailableSince"])
def test_an_unreadable_time_in_a_status_is_absent(field: str) -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    body = copy.deepcopy(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)])
    body["status"]["rollout"][field] = "2026-01-01T00:00:00+99:99"
    cluster.put(body)
    cluster.settle()
    assert read_weights(cluster) == {stable: 95, new: 5}


def test_the_old_revision_keeps_its_pods_until_the_gateway_has_left_it() -> None:
    cluster, stable = start_behind_gateway(steps=[])
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    assert read_weights(cluster) == {new: 100}
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending")
    assert cluster.objects[ROOT]["metadata"]["annotations"][ANNOTATION_STABLE] == stable
    assert read_replicas(cluster, stable) == 4
    cluster.accept_routes()
    cluster.settle()
    assert cluster.objects[ROOT]["metadata"]["annotations"][ANNOTATION_STABLE] == new
    assert read_replicas(cluster, stable) == 0


def test_a_candidate_that_never_loads_is_rolled_back_after_the_deadline_for_its_own_reason() -> None:
    cluster, stable = start_behind_gateway(progressDeadline="2m")
    new = change(cluster)
    cluster.put_pod(new, 0, ready=False, report=build_report(ModelState.FAILED, "LoadFailed", "Triton rejects it"))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "LoadFailed")
    assert cluster.condition("Reconciling") == ("True", "Progressing")
    cluster.now += 121
    cluster.settle()
    assert read_replicas(cluster, new) == 0
    assert read_weights(cluster) == {stable: 100}
    assert cluster.condition("Ready") == ("False", "LoadFailed")
    assert cluster.condition("Stalled") == ("True", "LoadFailed")
    assert cluster.condition("Serving")[0] == "True"
    assert Ref(CONTROLLER_REVISION, new) in cluster.objects, "the history keeps a failed revision"


def test_a_candidate_whose_triton_ended_once_is_rolled_back_with_how_it_ended() -> None:
    cluster, _ = start_behind_gateway(progressDeadline="2m")
    new = change(cluster)
    report = build_report(ModelState.LOADING, "TritonUnreachable", "Waiting for Triton at 127.0.0.1:8001.")
    last = {"terminated": {"reason": "Error", "exitCode": 139}}
    end = {"name": "triton", "ready": False, "restartCount": 1, "state": {"running": {}}, "lastState": last}
    agent = {"name": "agent", "ready": True, "restartCount": 1, "lastState": {"terminated": {"exitCode": 0}}}
    cluster.put_pod(new, 0, ready=False, report=report, containerStatuses=[agent, end])
    cluster.now += 121
    cluster.settle()
    rollout = cluster.status.rollout
    assert rollout is not None
    assert rollout.reason == "TritonUnreachable"
    assert rollout.message.endswith(
        "Waiting for Triton at 127.0.0.1:8001. Container triton ended (Error, exit code 139)."
    ), rollout.message


def crash_candidate(cluster: Cluster) -> str:
    """Crash a candidate while it has requests, which rolls it back. Return its name."""
    new = change(cluster)
    start_revision(cluster, new)
    crash = {"name": "triton", "ready": False, "restartCount": 3, "lastState": {"terminated": {"exitCode": 1}}}
    cluster.put_pod(new, 0, ready=False, containerStatuses=[crash])
    cluster.settle()
    return new


def test_a_candidate_that_crashes_later_is_rolled_back_at_once_and_leaves_when_the_gateway_has_left_it() -> None:
    cluster, stable = start_behind_gateway()
    new = crash_candidate(cluster)
    assert read_reason(cluster) == "CrashLooping"
    assert "RolledBack" in [event.reason for event in cluster.story]
    assert read_weights(cluster) == {stable: 100}
    assert read_replicas(cluster, new) == 1, "a request may still be in flight"
    cluster.accept_routes()
    cluster.settle()
    assert read_replicas(cluster, new) == 0
    assert cluster.decision().wait is None


def test_the_stable_revision_gets_the_share_of_a_candidate_without_ready_pods() -> None:
    """Requests without a pod are in no counter: the gateway answers them with 503."""
    cluster, stable = start_behind_gateway(progressDeadline="10m")
    new = change(cluster)
    start_revision(cluster, new)
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    triton = {"name": "triton", "ready": False, "restartCount": 1, "state": {"running": {}}, "lastState": ended}
    cluster.put_pod(new, 0, ready=False, containerStatuses=[triton])
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert read_reason(cluster) == "NotAnswering"
    cluster.accept_routes()
    cluster.now += 240
    cluster.settle()
    assert read_replicas(cluster, new) == 1, "its pods have the time to come back"
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}
    assert (read_reason(cluster), cluster.decision().wait) == ("Paused", 300.0), "the pause restarts"

    cluster.put_pod(new, 0, ready=False, containerStatuses=[triton])
    cluster.settle()
    cluster.now += 601
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == ("Failed", "NotAnswering")
    assert "Container triton ended (OOMKilled, exit code 137)." in rollout.message


def test_a_failed_revision_is_not_retried_until_the_spec_changes() -> None:
    cluster, stable = start_behind_gateway()
    new = crash_candidate(cluster)
    cluster.accept_routes()
    cluster.settle()
    cluster.edit(minReplicas=5)
    cluster.settle()
    assert read_replicas(cluster, new) == 0, "another generation of the same model is the failed revision"
    assert read_replicas(cluster, stable) == 5
    third = change(cluster, "s3://models/v3")
    assert read_replicas(cluster, third) == 1
    again = change(cluster, "s3://models/v2")
    assert again == new
    assert read_replicas(cluster, new) == 1, "the spec changed back to it"


def test_a_retry_is_acted_on_once() -> None:
    cluster, _ = start_behind_gateway()
    new = crash_candidate(cluster)
    cluster.accept_routes()
    cluster.settle()
    cluster.request(f"retry {cluster.snapshot().service.metadata.generation} 10:00")
    cluster.settle()
    assert read_replicas(cluster, new) == 1
    cluster.now += 3600
    cluster.settle()
    assert read_reason(cluster) == "ProgressDeadlineExceeded"
    assert cluster.settle() == 0, "one request retries once"


def test_an_abort_goes_back_at_once_and_is_void_for_the_next_change() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    settle_route(cluster)
    assert read_weights(cluster) == {stable: 100}
    assert read_reason(cluster) == "Aborted"
    third = change(cluster, "s3://models/v3")
    assert read_replicas(cluster, third) == 1


def settle_route(cluster: Cluster) -> None:
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()


def test_a_revert_goes_back_at_once() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert read_replicas(cluster, new) == 1
    cluster.accept_routes()
    cluster.settle()
    assert read_replicas(cluster, new) == 0
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_third_change_replaces_the_candidate_and_restarts_the_steps() -> None:
    cluster, stable = start_behind_gateway()
    second = change(cluster)
    start_revision(cluster, second)
    third = change(cluster, "s3://models/v3")
    assert read_weights(cluster) == {stable: 100}
    assert read_replicas(cluster, second) == 1
    start_revision(cluster, third)
    assert read_weights(cluster) == {stable: 95, third: 5}
    assert read_replicas(cluster, second) == 0


def test_a_pause_by_hand_holds_a_step_and_its_time_does_not_count() -> None:
    cluster, stable = start_behind_gateway(progressDeadline="2m")
    new = change(cluster)
    generation = cluster.snapshot().service.metadata.generation
    cluster.request(f"pause {generation}")
    cluster.settle()
    assert read_reason(cluster) == "PausedByUser"
    cluster.now += 3600
    cluster.settle()
    cluster.request("")
    cluster.settle()
    assert read_reason(cluster) == "MinimumReplicasUnavailable"
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}


def test_promoting_in_full_passes_every_pause_but_never_the_pods() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert read_replicas(cluster, new) == 4
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}


@pytest.mark.parametrize("request_", ["promote 1", "abort 1", "promote", "abort 2; drop table", "promote 2/9"])
def test_a_request_for_another_generation_or_of_another_form_does_nothing(request_: str) -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    cluster.request(request_)
    cluster.settle()
    assert read_weights(cluster) == {stable: 95, new: 5}


def test_on_failure_pause_keeps_the_weights_and_waits_for_a_user() -> None:
    cluster, stable = start_behind_gateway(onFailure="Pause")
    new = crash_candidate(cluster)
    assert read_weights(cluster) == {stable: 100}, "requests do not wait for a candidate that does not answer"
    assert read_reason(cluster) == "PausedOnFailure"
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}
    assert read_reason(cluster) == "PausedOnFailure"
    assert cluster.settle() == 0
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    settle_route(cluster)
    assert read_weights(cluster) == {stable: 100}


def test_weights_do_not_change_while_the_stable_revision_lacks_pods() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    start_revision(cluster, new)
    cluster.remove(Ref(_read_pod_kind(cluster), f"{stable}-3"))
    cluster.now += 300
    for _ in range(3):
        cluster.start_pods(new)
        cluster.settle()
    assert read_reason(cluster) == "StableNotReady"
    assert read_weights(cluster) == {stable: 95, new: 5}
    cluster.put_pod(stable, 9, ready=True)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}


def _read_pod_kind(cluster: Cluster) -> Any:
    return next(ref.kind for ref in cluster.objects if ref.kind.name == "Pod")


def test_a_change_of_the_model_may_add_pods() -> None:
    cluster, stable = start_behind_gateway(steps=[], replicas=1)
    cluster.edit(uri="s3://models/v2", minReplicas=3)
    cluster.settle()
    new = cluster.decision().wanted
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (1, 3)
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}


def test_a_gateway_that_refuses_holds_the_rollout_and_is_named() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    cluster.accept_routes("False", "NotAllowedByListeners", "no listener admits the namespace demo")
    cluster.settle()
    assert read_reason(cluster) == "RouteRefused"
    assert cluster.condition("TrafficProgrammed") == ("False", "RouteRefused")
    condition = cluster.status.condition("TrafficProgrammed")
    assert condition is not None
    assert "Gateway infra/public refuses HTTPRoute magika" in condition.message
    assert "no listener admits" in condition.message
    assert read_replicas(cluster, stable) == 4
    cluster.accept_routes()
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}


def test_a_service_behind_a_silent_gateway_reports_this_and_serves_in_the_cluster() -> None:
    cluster = Cluster(build_manifest(traffic=GATEWAY))
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    assert cluster.condition("Serving") == ("True", "Answering")
    assert cluster.condition("TrafficProgrammed") == ("False", "GatewayNotResponding")
    assert cluster.condition("Ready")[0] != "True"


def test_the_stable_revision_of_an_autoscaled_service_is_held_at_what_it_carried() -> None:
    cluster = Cluster(build_manifest(minReplicas=1, maxReplicas=8, rollout={"steps": STEPS}, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    scale(cluster, stable, 6)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    new = change(cluster)
    assert read_min_replicas(cluster, stable) == 6
    cluster.start_pods(new, count=1)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    cluster.now += 300
    cluster.settle()
    assert read_min_replicas(cluster, new) == 3, "half of what the stable one carried"
    assert read_min_replicas(cluster, stable) == 6
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    settle_route(cluster)
    assert read_min_replicas(cluster, stable) == 1, "minReplicas is that of the spec again"


def scale(cluster: Cluster, revision: str, count: int) -> None:
    body = cluster.objects[Ref(DEPLOYMENT, revision)]
    body["spec"]["replicas"] = count
    cluster.put(body)
    cluster.start_pods(revision)


def read_min_replicas(cluster: Cluster, revision: str) -> int:
    found: int = next(
        body["spec"]["minReplicas"]
        for ref, body in cluster.objects.items()
        if ref.kind.name == "HorizontalPodAutoscaler" and ref.name == revision
    )
    return found


def test_a_service_without_a_gateway_splits_by_pods_and_reports_the_observed_weight() -> None:
    cluster = Cluster(build_manifest(minReplicas=3, rollout={"steps": STEPS}, traffic={"split": "Replicas"}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    new = change(cluster)
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == stable
    cluster.start_pods(new)
    cluster.settle()
    assert names.LABEL_REVISION not in cluster.objects[ROOT]["spec"]["selector"]
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.weight, rollout.observed_weight) == (5, 25)
    cluster.now += 300
    cluster.settle()
    assert read_replicas(cluster, new) == 3
    cluster.start_pods(new)
    cluster.settle()
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == stable
    assert read_replicas(cluster, new) == 0


def test_recreate_ends_the_old_pods_first_and_goes_back_the_same_way() -> None:
    cluster = Cluster(build_manifest(minReplicas=2, rollout={"strategy": "Recreate", "progressDeadline": "2m"}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    new = change(cluster)
    assert read_replicas(cluster, stable) == 0
    assert Ref(DEPLOYMENT, new) not in cluster.objects, "the old pods have the resources of the new ones"
    cluster.kill_pods(stable)
    cluster.settle()
    assert read_replicas(cluster, new) == 2
    cluster.put_pod(new, 0, ready=False)
    cluster.now += 121
    cluster.settle()
    assert read_replicas(cluster, new) == 0
    assert read_replicas(cluster, stable) == 2
    cluster.start_pods(stable)
    third = change(cluster, "s3://models/v3")
    cluster.kill_pods(stable)
    cluster.settle()
    cluster.start_pods(third)
    cluster.settle()
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == third
    assert Ref(DEPLOYMENT, stable) not in cluster.objects


def test_a_pod_that_its_service_does_not_know_yet_gets_no_share() -> None:
    """A gateway that gets the weight first finds no endpoint of the candidate's Service: users would see 503."""
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    cluster.lists_pods = False
    start_revision(cluster, new)
    assert (read_weights(cluster), read_reason(cluster)) == ({stable: 100}, "MinimumReplicasUnavailable")
    cluster.lists_pods = True
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}


MANUAL: dict[str, Any] = {"pause": "Manual"}


def build_steps(*steps: int | dict[str, Any]) -> list[dict[str, Any]]:
    """Return steps; a number is a weight."""
    return [{"weight": step} if isinstance(step, int) else step for step in steps]


def start_until_pause(*steps: int | dict[str, Any], **rollout: Any) -> tuple[Cluster, str, str]:
    """Start a candidate with one pod, up to the first pause; return the names of both revisions too."""
    cluster, stable = start_behind_gateway(build_steps(*steps), replicas=3, **rollout)
    new = change(cluster)
    start_revision(cluster, new)
    assert read_reason(cluster) == "WaitsForPromotion"
    return cluster, stable, new


def promote(cluster: Cluster, step: str = "") -> None:
    """Promote by one step, or, in full, by all of them."""
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation}{step} {cluster.now}")
    cluster.settle()


def read_step(cluster: Cluster) -> int:
    rollout = cluster.status.rollout
    assert rollout is not None
    return rollout.step


@pytest.mark.parametrize(
    ("edited", "step", "reason"),
    [
        (build_steps(), 0, "MinimumReplicasUnavailable"),
        (build_steps(5), 1, "MinimumReplicasUnavailable"),
        (build_steps(5, 100), 1, "MinimumReplicasUnavailable"),
        (build_steps(5, 50, MANUAL), 1, "MinimumReplicasUnavailable"),
        (build_steps(5, MANUAL, 70), 1, "WaitsForPromotion"),
        (build_steps(MANUAL, 5, 50), 0, "WaitsForPromotion"),
        (build_steps(1, 2, 3, 4, MANUAL), 4, "WaitsForPromotion"),
        (build_steps(3, {"pause": "1m"}, 50), 1, "Paused"),
        (build_steps(40, MANUAL), 0, "MinimumReplicasUnavailable"),
    ],
    ids=str,
)
def test_edited_steps_are_taken_up_where_the_candidate_stands(
    edited: list[dict[str, Any]], step: int, reason: str
) -> None:
    cluster, stable, new = start_until_pause(5, MANUAL, 50, MANUAL)
    cluster.edit_rollout(steps=edited)
    cluster.settle()
    assert read_weights(cluster) == {stable: 95, new: 5}, "an edit alone changes no weight"
    assert (read_step(cluster), read_reason(cluster)) == (step, reason)
    rollout = cluster.status.rollout
    assert rollout is not None
    assert rollout.steps[-1].weight == 100


def test_a_pause_that_was_ended_does_not_return_after_an_edit() -> None:
    cluster, stable, new = start_until_pause(5, MANUAL, 50, MANUAL)
    promote(cluster, "/1")
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    cluster.edit_rollout(steps=build_steps(10, MANUAL, 20, MANUAL))
    cluster.settle()
    assert read_weights(cluster) == {stable: 50, new: 50}, "a share never falls by an edit"
    assert (read_step(cluster), read_reason(cluster)) == (3, "WaitsForPromotion")
    promote(cluster, "/3")
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}


SHAPES = [
    build_steps(),
    build_steps(MANUAL),
    build_steps(0, MANUAL),
    build_steps(50, 100, MANUAL),
    build_steps(50, MANUAL, 100, MANUAL),
    build_steps(100, MANUAL),
    build_steps(100, {"pause": "1m"}),
    build_steps(MANUAL, MANUAL, 100),
    build_steps(5, 5, MANUAL, 5, MANUAL),
]


@pytest.mark.parametrize("full", [True, False], ids=["in full", "step by step"])
@pytest.mark.parametrize("steps", SHAPES, ids=str)
def test_every_shape_of_steps_can_be_promoted_to_its_end(steps: list[dict[str, Any]], full: bool) -> None:
    cluster, stable = start_behind_gateway(steps)
    new = change(cluster)
    for _ in range(2 * len(steps) + 2):
        start_revision(cluster, new)
        rollout = cluster.status.rollout
        if rollout is None:
            break
        promote(cluster, "" if full else f"/{rollout.step}")
    assert read_weights(cluster) == {new: 100}
    assert cluster.status.rollout is None
    assert cluster.condition("Ready") == ("True", "Served")
    assert read_replicas(cluster, stable) == 0


def test_a_deleted_deployment_of_the_stable_revision_comes_back_and_decides_nothing() -> None:
    cluster, stable = start_behind_gateway()
    new = change(cluster)
    cluster.remove(Ref(DEPLOYMENT, stable))
    cluster.kill_pods(stable)
    cluster.settle()
    assert read_replicas(cluster, stable) == 4
    assert read_weights(cluster) == {stable: 100}
    assert (cluster.status.stable, cluster.status.candidate) == (stable, new)


@pytest.mark.parametrize("rounds", range(4))
def test_any_child_that_is_deleted_at_any_step_comes_back_from_its_record(rounds: int) -> None:
    cluster, _ = start_behind_gateway()
    new = change(cluster)
    for _ in range(rounds):
        start_revision(cluster, new)
        cluster.now += 300
        if read_reason(cluster) == "WaitsForPromotion":
            promote(cluster, f"/{read_step(cluster)}")
    start_revision(cluster, new) if rounds else cluster.settle()
    before = (cluster.status.stable, cluster.status.candidate, read_weights(cluster))
    ours = [ref for ref in cluster.objects if ref.kind.name not in {"Pod", "EndpointSlice", "InferenceService"}]
    for ref in ours:
        if ref.kind == CONTROLLER_REVISION and ref.name != new:
            continue  # the record itself: what it made stays as it is, until it is replaced
        cluster.remove(ref)
        cluster.settle()
        assert set(ours) <= cluster.objects.keys(), ref
        assert (cluster.status.stable, cluster.status.candidate, read_weights(cluster)) == before, ref
        cluster.accept_routes()
        cluster.settle()


def test_the_fix_of_a_first_revision_that_never_answered_has_no_steps() -> None:
    cluster = Cluster(build_manifest(minReplicas=3, rollout={"steps": STEPS}, traffic=GATEWAY))
    cluster.settle()
    broken = cluster.decision().wanted
    cluster.put_pod(broken, 0, ready=False, report=build_report(ModelState.FAILED, "LoadFailed", "Triton rejects it"))
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    new = change(cluster)
    assert read_replicas(cluster, new) == 3
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert cluster.condition("Ready") == ("True", "Served")


def test_the_candidate_gets_all_requests_while_no_pod_of_the_stable_revision_answers() -> None:
    cluster, stable, new = start_until_pause(5, MANUAL)
    cluster.kill_pods(stable)
    cluster.settle()
    assert read_weights(cluster) == {new: 100}
    assert (cluster.status.stable, cluster.status.candidate) == (stable, new), "it is not promoted"
    cluster.start_pods(stable)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 95, new: 5}


def test_a_candidate_whose_pod_finds_no_node_in_a_pause_fails_after_the_progress_deadline() -> None:
    cluster, stable, new = start_until_pause(20, MANUAL, progressDeadline="5m")
    cluster.kill_pods(new)
    cluster.put_pod(
        new,
        0,
        ready=False,
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}],
    )
    settle_route(cluster)
    assert read_weights(cluster) == {stable: 100}
    assert read_reason(cluster) == "Unschedulable"
    assert cluster.decision().wait is not None
    cluster.now += 301
    cluster.settle()
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == ("Failed", "Unschedulable")
    assert cluster.condition("Stalled") == ("True", "Unschedulable")


def test_a_stable_revision_that_lacks_a_pod_does_not_block_the_change_that_mends_it() -> None:
    cluster, stable = start_behind_gateway(steps=[], replicas=3)
    cluster.put_pod(stable, 2, ready=False)
    new = change(cluster)
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}


def test_a_promotion_in_full_and_the_deadline_override_missing_stable_pods() -> None:
    for overruled in (True, False):
        cluster, stable = start_behind_gateway(build_steps(50, MANUAL), replicas=3, progressDeadline="5m")
        cluster.put_pod(stable, 2, ready=False)
        new = change(cluster)
        start_revision(cluster, new)
        assert read_reason(cluster) == "StableNotReady"
        if overruled:
            promote(cluster)
            start_revision(cluster, new)
            assert read_weights(cluster) == {new: 100}
        else:
            cluster.now += 301
            start_revision(cluster, new)
            assert read_weights(cluster) == {stable: 50, new: 50}
            assert read_reason(cluster) == "WaitsForPromotion"


def test_replicas_added_in_a_pause_are_the_stable_revisions_too() -> None:
    cluster, stable, new = start_until_pause(50, MANUAL)
    cluster.edit(minReplicas=5)
    cluster.settle()
    assert read_replicas(cluster, stable) == 5
    cluster.start_pods(stable)
    start_revision(cluster, new)
    assert read_replicas(cluster, new) == 3
    assert read_weights(cluster) == {stable: 50, new: 50}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("promte {g}", "write promote, pause, abort or retry with the generation, such as 'promote {g}'"),
        ("promote", "is not a request"),
        ("promote 1", "It is for generation 1, and the spec has generation {g}; write 'promote {g}'"),
        ("promote {g}/9", "The rollout is at step 1, not 9; write 'promote {g}/1'"),
        ("retry {g}", "has not failed, so there is nothing to retry"),
        ("promote {g} 🙂" + "x" * 64, "is not a request"),
    ],
)
def test_a_request_without_effect_is_answered(text: str, words: str) -> None:
    cluster, _, _ = start_until_pause(5, MANUAL)
    generation = cluster.snapshot().service.metadata.generation
    cluster.request(text.format(g=generation))
    cluster.settle()
    answer = cluster.status.request
    assert answer is not None
    assert answer.state == "Refused"
    assert words.format(g=generation) in answer.message
    assert [event.reason for event in cluster.story].count("RequestRefused") == 1
    assert cluster.settle() == 0
    cluster.request("")
    cluster.settle()
    assert cluster.status.request is None


def test_a_request_that_was_acted_on_stays_done_when_the_rollout_is_over() -> None:
    cluster, _, new = start_until_pause(5, MANUAL)
    cluster.request(f"pause {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert cluster.status.request is not None
    assert cluster.status.request.state == "Done"
    cluster.request(f"promote {cluster.snapshot().service.metadata.generation} für 🙂")
    start_revision(cluster, new)
    assert cluster.status.rollout is None
    assert cluster.status.request is not None
    assert cluster.status.request.state == "Done"
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert cluster.status.request.state == "Refused"
    assert "No rollout is under way" in cluster.status.request.message
    assert "RequestRefused" in [event.reason for event in cluster.story]


def test_the_fix_of_a_stable_revision_without_pods_goes_through_its_steps_and_serves() -> None:
    cluster, stable = start_behind_gateway(build_steps(5, {"pause": "1m"}, 50), replicas=1)
    cluster.put_pod(stable, 0, ready=False)
    cluster.settle()
    new = change(cluster)
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert read_reason(cluster) == "Paused"
    cluster.now += 61
    start_revision(cluster, new)
    assert cluster.status.rollout is None
    assert cluster.status.stable == new
    assert cluster.condition("Ready") == ("True", "Served")


@pytest.mark.parametrize("wait", [MANUAL, {"analysis": "5m"}], ids=["pause", "analysis"])
def test_an_edit_that_removes_a_wait_that_was_passed_keeps_the_one_under_way(wait: dict[str, Any]) -> None:
    def steps(*items: int | dict[str, Any]) -> tuple[StepInForce, ...]:
        rollout = Rollout.model_validate({"steps": build_steps(*items)})
        return choose_strategy(rollout).steps(rollout)

    before = replace(RolloutState.begin("new", 4, 0.0), steps=steps(5, wait, 50, wait), step=3, weight=50)
    after = with_steps(before, steps(5, 50, wait), 1.0)
    assert (after.step, after.steps[after.step].to_wire()) == (2, wait)
    assert after.since == before.since


def test_a_refused_request_has_no_effect_later() -> None:
    cluster, _, new = start_until_pause(5, MANUAL, 50, MANUAL)
    generation = cluster.snapshot().service.metadata.generation
    cluster.request(f"promote {generation}/3")
    start_revision(cluster, new)
    promote(cluster, "/1")
    start_revision(cluster, new)
    cluster.request(f"promote {generation}/4")
    cluster.settle()
    assert (read_step(cluster), read_reason(cluster)) == (3, "WaitsForPromotion")
    for _ in range(3):
        start_revision(cluster, new)
    assert read_step(cluster) == 3
    assert [event.reason for event in cluster.story].count("RequestRefused") == 2


def test_a_request_for_the_next_generation_waits_for_it() -> None:
    cluster, _, new = start_until_pause(5, MANUAL)
    generation = cluster.snapshot().service.metadata.generation
    cluster.request(f"promote {generation + 1}")
    cluster.settle()
    assert cluster.status.request is not None
    assert cluster.status.request.state == "Pending"
    cluster.edit_rollout(progressDeadline="16m")
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}
    assert cluster.status.request.state == "Done"


@pytest.mark.parametrize("on_failure", ["Rollback", "Pause"])
def test_a_paused_rollout_is_not_reconciled_periodically(on_failure: str) -> None:
    cluster, _stable, new = start_until_pause(5, MANUAL, {"pause": "5m"}, onFailure=on_failure)
    promote(cluster, "/1")
    if on_failure == "Pause":
        crash = {"name": "triton", "ready": False, "restartCount": 3, "lastState": {"terminated": {"exitCode": 1}}}
        cluster.put_pod(new, 0, ready=False, containerStatuses=[crash])
        cluster.settle()
        start_revision(cluster, new)
        assert read_reason(cluster) == "PausedOnFailure"
    else:
        cluster.request(f"pause {cluster.snapshot().service.metadata.generation}")
        cluster.settle()
        assert read_reason(cluster) == "PausedByUser"
    cluster.now += 4000
    cluster.settle()
    assert cluster.decision().wait is None


def test_promoting_a_candidate_that_failed_without_ready_pods_gives_it_the_deadline_once_more() -> None:
    cluster, _stable, new = start_until_pause(5, MANUAL, onFailure="Pause", progressDeadline="2m")
    cluster.put_pod(new, 0, ready=False)
    settle_route(cluster)
    cluster.now += 121
    cluster.settle()
    assert read_reason(cluster) == "PausedOnFailure"
    promote(cluster)
    assert read_reason(cluster) == "NotAnswering"
    assert "0 of its 1 pods for 5 % are ready" in (cluster.status.rollout.message if cluster.status.rollout else "")
    start_revision(cluster, new)
    assert read_weights(cluster) == {new: 100}


def test_half_a_candidate_gets_all_requests_of_a_stable_revision_without_pods() -> None:
    cluster, stable = start_behind_gateway(build_steps(50, MANUAL), replicas=4)
    new = change(cluster)
    start_revision(cluster, new)
    cluster.kill_pods(new)
    settle_route(cluster)
    assert read_weights(cluster) == {stable: 100}
    cluster.put_pod(new, 0, ready=True)
    settle_route(cluster)
    assert read_weights(cluster) == {stable: 100}, "one pod of two is too few for half of the requests"
    cluster.kill_pods(stable)
    cluster.settle()
    assert read_weights(cluster) == {new: 100}


def test_the_route_keeps_the_timeout_of_the_revisions_that_have_requests() -> None:
    cluster = Cluster(build_manifest(longestRequest="10m", rollout={"progressDeadline": "2m"}, traffic=GATEWAY))
    cluster.reconcile()
    start_revision(cluster, cluster.decision().wanted)
    cluster.edit(longestRequest="1m")
    cluster.settle()

    def timeouts() -> set[str]:
        rules = cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["spec"]["rules"]
        return {rule["timeouts"]["request"] for rule in rules}

    assert timeouts() == {"10m"}
    start_revision(cluster, cluster.decision().wanted)
    assert timeouts() == {"1m"}


def test_a_route_that_lost_its_labels_leads_where_it_led_until_the_gateway_follows() -> None:
    cluster, stable, new = start_until_pause(5, MANUAL)
    cluster.request(f"abort {cluster.snapshot().service.metadata.generation}")
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert cluster.accepted == {stable, new}
    route = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
    del route["metadata"]["labels"]
    cluster.put(route)
    cluster.settle()
    assert Ref(DEPLOYMENT, new) in cluster.objects, "requests may still reach the candidate"
    assert cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["metadata"]["labels"]
    cluster.accept_routes()
    cluster.settle()
    assert Ref(DEPLOYMENT, new) not in cluster.objects
