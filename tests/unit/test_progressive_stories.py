"""Stories of progressive delivery, told to the pure rooms: shares, capacity, pauses, failures, people's requests."""

from typing import Any

import pytest

from conch.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, SERVICE, Ref
from conch.api.names import ANNOTATION_STABLE
from conch_contract import ModelState, names
from tests.unit.simulation import KEY, Cluster, come_up, manifest, routed, told

ROOT = Ref(SERVICE, KEY.name)
GATEWAY = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
STEPS = [{"weight": 5}, {"pause": "5m"}, {"weight": 50}, {"pause": "Manual"}, {"weight": 100}]


def canary(steps: list[dict[str, Any]] | None = None, replicas: int = 4, **rollout: Any) -> tuple[Cluster, str]:
    """A service behind a gateway that serves; and the name of its revision."""
    said = {"steps": STEPS if steps is None else steps, **rollout}
    cluster = Cluster(manifest(minReplicas=replicas, rollout=said, traffic=GATEWAY))
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


def pods(cluster: Cluster, revision: str) -> int:
    """The pods that a revision's Deployment wants; 0 if there is none."""
    found = cluster.objects.get(Ref(DEPLOYMENT, revision))
    return found["spec"]["replicas"] if found else 0


def waits_for(cluster: Cluster) -> str:
    rollout = cluster.status.rollout
    return rollout.reason if rollout else ""


def test_a_good_candidate_goes_by_its_steps_and_serves_in_the_end() -> None:
    cluster, stable = canary()
    new = change(cluster)
    assert routed(cluster) == {stable: 100}
    assert (waits_for(cluster), pods(cluster, new)) == ("WaitsForPods", 1)
    come_up(cluster, new)
    assert routed(cluster) == {stable: 95, new: 5}
    assert (waits_for(cluster), cluster.decision().wait) == ("Paused", 300.0)
    assert (cluster.status.stable, cluster.status.candidate, cluster.status.weight) == (stable, new, 5)
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == stable

    cluster.now += 300
    cluster.settle()
    assert routed(cluster) == {stable: 95, new: 5}, "no share before the pods for it"
    assert pods(cluster, new) == 2
    come_up(cluster, new)
    assert routed(cluster) == {stable: 50, new: 50}
    assert pods(cluster, stable) == 4, "the stable one keeps its capacity"
    assert waits_for(cluster) == "WaitsForPromotion"
    cluster.now += 86_400
    cluster.settle()
    assert routed(cluster) == {stable: 50, new: 50}, "a manual pause has no deadline"

    cluster.ask(f"promote {cluster.world().service.metadata.generation}/3")
    come_up(cluster, new)
    assert routed(cluster) == {new: 100}
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == new
    assert pods(cluster, stable) == 0
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


def test_the_old_revision_keeps_its_pods_until_the_gateway_has_left_it() -> None:
    cluster, stable = canary(steps=[])
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    assert routed(cluster) == {new: 100}
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending")
    assert cluster.objects[ROOT]["metadata"]["annotations"][ANNOTATION_STABLE] == stable
    assert pods(cluster, stable) == 4
    cluster.accept_routes()
    cluster.settle()
    assert cluster.objects[ROOT]["metadata"]["annotations"][ANNOTATION_STABLE] == new
    assert pods(cluster, stable) == 0


def test_a_candidate_that_never_loads_is_rolled_back_after_the_deadline_for_its_own_reason() -> None:
    cluster, stable = canary(progressDeadline="2m")
    new = change(cluster)
    cluster.pod(new, 0, ready=False, report=told(ModelState.FAILED, "LoadFailed", "Triton says no"))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "LoadFailed")
    assert cluster.condition("Reconciling") == ("True", "Progressing")
    cluster.now += 121
    cluster.settle()
    assert pods(cluster, new) == 0
    assert routed(cluster) == {stable: 100}
    assert cluster.condition("Ready") == ("False", "LoadFailed")
    assert cluster.condition("Stalled") == ("True", "LoadFailed")
    assert cluster.condition("Serving")[0] == "True"
    assert Ref(CONTROLLER_REVISION, new) in cluster.objects, "the history keeps what failed"


def failed(cluster: Cluster) -> str:
    """Let a candidate crash while it has requests; it is rolled back. Return its name."""
    new = change(cluster)
    come_up(cluster, new)
    crash = {"name": "triton", "ready": False, "restartCount": 3, "lastState": {"terminated": {"exitCode": 1}}}
    cluster.pod(new, 0, ready=False, containerStatuses=[crash])
    cluster.settle()
    return new


def test_a_candidate_that_crashes_later_is_rolled_back_at_once_and_leaves_when_the_gateway_has_left_it() -> None:
    cluster, stable = canary()
    new = failed(cluster)
    assert waits_for(cluster) == "CrashLooping"
    assert "RolledBack" in [event.reason for event in cluster.story]
    assert routed(cluster) == {stable: 100}
    assert pods(cluster, new) == 1, "a request may still be on its way"
    cluster.accept_routes()
    cluster.settle()
    assert pods(cluster, new) == 0
    assert cluster.decision().wait is None


def test_a_candidate_whose_pods_stop_answering_is_rolled_back_before_any_gate_could_tell() -> None:
    """What reaches no Triton is in no counter: the gateway alone answers, with 503."""
    cluster, stable = canary()
    new = change(cluster)
    come_up(cluster, new)
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    triton = {"name": "triton", "ready": False, "restartCount": 1, "state": {"running": {}}, "lastState": ended}
    cluster.pod(new, 0, ready=False, containerStatuses=[triton])
    cluster.now += 9
    cluster.settle()
    assert routed(cluster) == {stable: 95, new: 5}, "one probe may be late"
    cluster.now += 1
    cluster.settle()
    assert routed(cluster) == {stable: 100}
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.state, rollout.reason) == ("Failed", "NotAnswering")
    assert "Container triton ended (OOMKilled, exit code 137)." in rollout.message


def test_what_failed_stays_refused_until_it_changes() -> None:
    cluster, stable = canary()
    new = failed(cluster)
    cluster.accept_routes()
    cluster.settle()
    cluster.edit(minReplicas=5)
    cluster.settle()
    assert pods(cluster, new) == 0, "another generation of the same model is still the one that failed"
    assert pods(cluster, stable) == 5
    third = change(cluster, "s3://models/v3")
    assert pods(cluster, third) == 1
    again = change(cluster, "s3://models/v2")
    assert again == new
    assert pods(cluster, new) == 1, "it was asked for anew"


def test_a_retry_is_acted_on_once() -> None:
    cluster, _ = canary()
    new = failed(cluster)
    cluster.accept_routes()
    cluster.settle()
    cluster.ask(f"retry {cluster.world().service.metadata.generation} 10:00")
    cluster.settle()
    assert pods(cluster, new) == 1
    cluster.now += 3600
    cluster.settle()
    assert waits_for(cluster) == "ProgressDeadlineExceeded"
    assert cluster.settle() == 0, "the same request does not try it for ever"


def test_an_abort_goes_back_at_once_and_is_void_for_the_next_change() -> None:
    cluster, stable = canary()
    new = change(cluster)
    come_up(cluster, new)
    cluster.ask(f"abort {cluster.world().service.metadata.generation}")
    come_back(cluster)
    assert routed(cluster) == {stable: 100}
    assert waits_for(cluster) == "Aborted"
    third = change(cluster, "s3://models/v3")
    assert pods(cluster, third) == 1


def come_back(cluster: Cluster) -> None:
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()


def test_a_revert_goes_back_at_once() -> None:
    cluster, stable = canary()
    new = change(cluster)
    come_up(cluster, new)
    cluster.edit(uri="s3://models/magika")
    cluster.settle()
    assert routed(cluster) == {stable: 100}
    assert pods(cluster, new) == 1
    cluster.accept_routes()
    cluster.settle()
    assert pods(cluster, new) == 0
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_third_change_replaces_the_candidate_and_begins_anew() -> None:
    cluster, stable = canary()
    second = change(cluster)
    come_up(cluster, second)
    third = change(cluster, "s3://models/v3")
    assert routed(cluster) == {stable: 100}
    assert pods(cluster, second) == 1
    come_up(cluster, third)
    assert routed(cluster) == {stable: 95, third: 5}
    assert pods(cluster, second) == 0


def test_a_pause_by_hand_holds_a_step_and_its_time_does_not_count() -> None:
    cluster, stable = canary(progressDeadline="2m")
    new = change(cluster)
    generation = cluster.world().service.metadata.generation
    cluster.ask(f"pause {generation}")
    cluster.settle()
    assert waits_for(cluster) == "PausedByHand"
    cluster.now += 3600
    cluster.settle()
    cluster.ask("")
    cluster.settle()
    assert waits_for(cluster) == "WaitsForPods"
    come_up(cluster, new)
    assert routed(cluster) == {stable: 95, new: 5}


def test_promoting_in_full_passes_every_pause_but_never_the_pods() -> None:
    cluster, stable = canary()
    new = change(cluster)
    cluster.ask(f"promote {cluster.world().service.metadata.generation}")
    cluster.settle()
    assert routed(cluster) == {stable: 100}
    assert pods(cluster, new) == 4
    come_up(cluster, new)
    assert routed(cluster) == {new: 100}


@pytest.mark.parametrize("request_", ["promote 1", "abort 1", "promote", "abort 2; drop table", "promote 2/9"])
def test_a_request_for_another_generation_or_of_another_form_does_nothing(request_: str) -> None:
    cluster, stable = canary()
    new = change(cluster)
    come_up(cluster, new)
    cluster.ask(request_)
    cluster.settle()
    assert routed(cluster) == {stable: 95, new: 5}


def test_on_failure_pause_leaves_the_shares_and_asks() -> None:
    cluster, stable = canary(onFailure="Pause")
    new = failed(cluster)
    assert routed(cluster) == {stable: 95, new: 5}
    assert waits_for(cluster) == "PausedOnFailure"
    assert cluster.settle() == 0
    cluster.ask(f"abort {cluster.world().service.metadata.generation}")
    come_back(cluster)
    assert routed(cluster) == {stable: 100}


def test_no_share_moves_while_the_stable_revision_lacks_pods() -> None:
    cluster, stable = canary()
    new = change(cluster)
    come_up(cluster, new)
    cluster.remove(Ref(_pod_kind(cluster), f"{stable}-3"))
    cluster.now += 300
    for _ in range(3):
        cluster.start_pods(new)
        cluster.settle()
    assert waits_for(cluster) == "StableNotReady"
    assert routed(cluster) == {stable: 95, new: 5}
    cluster.pod(stable, 9, ready=True)
    come_up(cluster, new)
    assert routed(cluster) == {stable: 50, new: 50}


def _pod_kind(cluster: Cluster) -> Any:
    return next(ref.kind for ref in cluster.objects if ref.kind.name == "Pod")


def test_a_change_of_the_model_may_ask_for_more_pods_too() -> None:
    cluster, stable = canary(steps=[], replicas=1)
    cluster.edit(uri="s3://models/v2", minReplicas=3)
    cluster.settle()
    new = cluster.decision().wanted
    assert (pods(cluster, stable), pods(cluster, new)) == (1, 3)
    come_up(cluster, new)
    assert routed(cluster) == {new: 100}


def test_a_gateway_that_refuses_holds_the_rollout_and_is_named() -> None:
    cluster, stable = canary()
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    cluster.accept_routes("False", "NotAllowedByListeners", "no listener admits the namespace demo")
    cluster.settle()
    assert waits_for(cluster) == "RouteRefused"
    assert cluster.condition("TrafficProgrammed") == ("False", "RouteRefused")
    condition = cluster.status.condition("TrafficProgrammed")
    assert condition is not None
    assert "Gateway infra/public refuses HTTPRoute magika" in condition.message
    assert "no listener admits" in condition.message
    assert pods(cluster, stable) == 4
    cluster.accept_routes()
    come_up(cluster, new)
    assert routed(cluster) == {stable: 95, new: 5}


def test_a_service_behind_a_gateway_that_says_nothing_says_so_and_serves_in_the_cluster() -> None:
    cluster = Cluster(manifest(traffic=GATEWAY))
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    assert cluster.condition("Serving") == ("True", "Answering")
    assert cluster.condition("TrafficProgrammed") == ("False", "GatewaySilent")
    assert cluster.condition("Ready")[0] != "True"


def test_the_stable_revision_of_an_autoscaled_service_is_held_at_what_it_carried() -> None:
    cluster = Cluster(manifest(minReplicas=1, maxReplicas=8, rollout={"steps": STEPS}, traffic=GATEWAY))
    cluster.reconcile()
    stable = cluster.decision().wanted
    scale(cluster, stable, 6)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    new = change(cluster)
    assert floor(cluster, stable) == 6
    cluster.start_pods(new, count=1)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    cluster.now += 300
    cluster.settle()
    assert floor(cluster, new) == 3, "half of what the stable one carried"
    assert floor(cluster, stable) == 6
    cluster.ask(f"abort {cluster.world().service.metadata.generation}")
    come_back(cluster)
    assert floor(cluster, stable) == 1, "the autoscaler has it back"


def scale(cluster: Cluster, revision: str, count: int) -> None:
    body = cluster.objects[Ref(DEPLOYMENT, revision)]
    body["spec"]["replicas"] = count
    cluster.put(body)
    cluster.start_pods(revision)


def floor(cluster: Cluster, revision: str) -> int:
    found: int = next(
        body["spec"]["minReplicas"]
        for ref, body in cluster.objects.items()
        if ref.kind.name == "HorizontalPodAutoscaler" and ref.name == revision
    )
    return found


def test_without_a_gateway_pods_share_the_requests_and_the_share_that_came_of_it_is_told() -> None:
    cluster = Cluster(manifest(minReplicas=3, rollout={"steps": STEPS}, traffic={"split": "Replicas"}))
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
    assert (rollout.weight, rollout.programmed) == (5, 25)
    cluster.now += 300
    cluster.settle()
    assert pods(cluster, new) == 3
    cluster.start_pods(new)
    cluster.settle()
    cluster.ask(f"abort {cluster.world().service.metadata.generation}")
    cluster.settle()
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == stable
    assert pods(cluster, new) == 0


def test_recreate_ends_the_old_pods_first_and_goes_back_the_same_way() -> None:
    cluster = Cluster(manifest(minReplicas=2, rollout={"strategy": "Recreate", "progressDeadline": "2m"}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    new = change(cluster)
    assert pods(cluster, stable) == 0
    assert Ref(DEPLOYMENT, new) not in cluster.objects, "the old pods hold what the new ones need"
    cluster.kill_pods(stable)
    cluster.settle()
    assert pods(cluster, new) == 2
    cluster.pod(new, 0, ready=False)
    cluster.now += 121
    cluster.settle()
    assert pods(cluster, new) == 0
    assert pods(cluster, stable) == 2
    cluster.start_pods(stable)
    third = change(cluster, "s3://models/v3")
    cluster.kill_pods(stable)
    cluster.settle()
    cluster.start_pods(third)
    cluster.settle()
    assert cluster.objects[ROOT]["spec"]["selector"][names.LABEL_REVISION] == third
    assert Ref(DEPLOYMENT, stable) not in cluster.objects


def test_a_pod_that_its_service_does_not_know_yet_gets_no_share() -> None:
    """A gateway that hears of the share first finds nobody behind the candidate's Service: users would see 503."""
    cluster, stable = canary()
    new = change(cluster)
    cluster.lists_pods = False
    come_up(cluster, new)
    assert (routed(cluster), waits_for(cluster)) == ({stable: 100}, "WaitsForPods")
    cluster.lists_pods = True
    come_up(cluster, new)
    assert routed(cluster) == {stable: 95, new: 5}
