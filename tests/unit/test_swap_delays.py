"""Swaps whose components are late: kubelets that refresh no file, agents without reports, pods that start meanwhile."""

import copy
from typing import Any

import pytest

from conch.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD, Ref
from conch_contract import ModelState
from tests.unit.delays import TRAFFIC, WRONG, DelayedCluster
from tests.unit.simulation import KEY, build_manifest, build_report

HALF: list[dict[str, Any]] = [{"weight": 50}, {"pause": "Manual"}]
either_way = pytest.mark.parametrize("traffic", [None, TRAFFIC], ids=["Service", "gateway"])


def begin(
    pods: int, traffic: dict[str, Any] | None = None, steps: list[dict[str, Any]] | None = None, **predictor: Any
) -> tuple[DelayedCluster, str]:
    """Return a cluster whose first revision serves on these pods, and its name."""
    rollout = {"strategy": "Swap", "steps": steps or []}
    cluster = DelayedCluster(build_manifest(rollout=rollout, traffic=traffic, minReplicas=pods, **predictor))
    cluster.advance(3)
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster, str(cluster.status.stable)


def change(cluster: DelayedCluster, folder: str) -> None:
    """Change the model's files; the pods' files follow, and no agent has loaded yet."""
    cluster.edit(uri=f"s3://models/{folder}")
    cluster.settle()
    refresh_all(cluster)


def refresh_all(cluster: DelayedCluster) -> None:
    for name in cluster.list_serving_pods():
        cluster.refresh_files(name)


def change_to_pause(cluster: DelayedCluster, folder: str) -> None:
    """Change the model's files, and let the rollout come to its pause."""
    cluster.edit(uri=f"s3://models/{folder}")
    cluster.advance(5)
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Paused"


@either_way
@pytest.mark.parametrize("pods", [2, 4])
def test_after_a_swap_requests_get_the_new_model_alone(traffic: dict[str, Any] | None, pods: int) -> None:
    """The kubelet refreshes the files of a pod whose annotations changed at once, those of others after a minute."""
    cluster, stable = begin(pods, traffic)
    cluster.edit(uri="s3://models/other")
    for _ in range(12):
        cluster.settle()
        for name in cluster.list_serving_pods():
            if cluster.read_assigned(name) != cluster.agent_of(name).assigned:
                cluster.refresh_files(name)
            cluster.load(name)
        cluster.settle()
        cluster.accept_routes()
    candidate = str(cluster.status.stable)
    assert candidate != stable
    assert cluster.status.rollout is None
    assert set(cluster.list_answers(candidate)) == {candidate}, "the route leads to this Service"
    assert set(cluster.list_answers(KEY.name)) == {candidate}


def test_with_fewer_pods_in_the_middle_requests_are_answered_until_the_new_model_serves() -> None:
    cluster, _ = begin(2, TRAFFIC, HALF)
    change_to_pause(cluster, "other")
    cluster.edit(minReplicas=1)
    cluster.edit_rollout(steps=[])
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert cluster.status.rollout is None
    for _ in range(3):
        cluster.run_replica_sets()
        cluster.settle()
        refresh_all(cluster)
        cluster.settle()
        assert cluster.list_answering(KEY.name), "the only pod loads the candidate, and is not ready"
    [name] = cluster.list_serving_pods()
    assert cluster.agent_of(name).serves == cluster.status.stable


@either_way
def test_a_pod_that_is_lost_while_a_model_does_not_load_is_replaced_by_one_that_answers(
    traffic: dict[str, Any] | None,
) -> None:
    """The new pod serves the stable revision before it loads the candidate."""
    cluster, stable = begin(1, traffic)
    change(cluster, "broken")
    cluster.run_agents(fails=True)
    cluster.settle()
    assert cluster.list_answering(KEY.name)
    [lost] = cluster.list_serving_pods()
    cluster.remove(Ref(POD, lost))
    cluster.settle()
    cluster.run_replica_sets()
    until = cluster.now + 60
    while not cluster.list_answering(KEY.name):
        assert cluster.now < until, "no answer for a minute, although the stable revision loads"
        cluster.settle()
        refresh_all(cluster)
        for name in cluster.list_serving_pods():
            cluster.load(name, fails=cluster.agent_of(name).target != stable)
        cluster.settle()
        cluster.now += 10


def test_a_change_of_which_no_agent_reports_ends_with_a_remedy() -> None:
    """A network policy keeps the operator from the agents: the pod changes, and the operator gets no report of it."""
    cluster, _ = begin(1)
    change(cluster, "other")
    cluster.load(cluster.list_serving_pods()[0])
    cluster.reaches_agents = False
    cluster.reports.clear()
    for _ in range(100):
        cluster.settle()
        cluster.run_agents()
        cluster.now += 61
    stalled = cluster.status.condition("Stalled")
    assert stalled is not None
    assert stalled.status == "True"
    assert "Check that network policies let the operator reach port" in stalled.message


def test_on_the_way_back_the_pod_that_answers_stays_while_a_second_one_starts() -> None:
    cluster, _ = begin(1, steps=HALF)
    change_to_pause(cluster, "other")
    cluster.edit(minReplicas=2)
    cluster.settle()
    cluster.run_replica_sets()  # the spec changes again before the operator knows of the new pod
    cluster.edit(uri="s3://models/magika")
    for _ in range(3):
        cluster.reconcile()
        assert cluster.list_answering(KEY.name), "the pod that answers left its Services"
        refresh_all(cluster)
        assert cluster.list_answering(KEY.name), "the pod that answers is not ready any more"


def wait_for_failure(cluster: DelayedCluster, seconds: float) -> None:
    """Reconcile until the rollout has failed, which takes no longer than these seconds."""
    until = cluster.now + seconds
    cluster.settle()
    while cluster.status.rollout is None or cluster.status.rollout.phase != "Failed":
        assert cluster.now < until, cluster.status.rollout
        cluster.now += 10
        cluster.settle()


def test_wrong_answers_in_a_warm_up_end_a_change_in_place_at_once() -> None:
    """Triton answers with the candidate already: users get wrong answers until the pod goes back."""
    cluster, _ = begin(1, warmup={})
    change(cluster, "wrong")
    [name] = cluster.list_serving_pods()
    agent, uid = cluster.agent_of(name), cluster.read_pod(name)["metadata"]["uid"]
    agent.serves = agent.target
    report = build_report(ModelState.FAILED, WRONG.reason, WRONG.message)
    models = tuple(model.model_copy(update={"warmup": WRONG}) for model in report.models)
    changed = {"models": models, "revision": agent.target, "ready": True}
    cluster.reports[uid] = report.model_copy(update=changed)
    wait_for_failure(cluster, seconds=60)


def test_a_pod_that_answers_no_more_while_a_model_does_not_load_goes_back_at_once() -> None:
    """Its Triton ended and started again, with the candidate alone in its repository."""
    cluster, stable = begin(1)
    change(cluster, "broken")
    cluster.run_agents(fails=True)
    cluster.settle()
    [name] = cluster.list_serving_pods()
    cluster.agent_of(name).serves = ""
    cluster.report(name)
    assert not cluster.list_answering(KEY.name)
    wait_for_failure(cluster, seconds=60)
    cluster.run_agents()
    assert cluster.list_answers(KEY.name) == [stable]


@either_way
def test_a_swap_ends_although_the_record_of_the_first_revision_was_deleted(traffic: dict[str, Any] | None) -> None:
    cluster, stable = begin(4, traffic, [{"weight": 25}, {"pause": "Manual"}])
    change_to_pause(cluster, "other")
    cluster.remove(Ref(CONTROLLER_REVISION, stable))
    cluster.settle()
    cluster.request(f"promote {cluster.status.observed_generation}")
    for _ in range(20):
        cluster.advance()
        cluster.now += 120
    assert cluster.condition("Ready") == ("True", "Served"), cluster.list_answers(KEY.name)
    assert cluster.list_answers(KEY.name) == [cluster.status.stable] * 4


def test_the_last_pod_of_the_stable_revision_stays_while_another_one_goes_back_to_it() -> None:
    """The pod that was replaced serves the candidate that is given up, and comes first in the order of the pods."""
    cluster, _ = begin(2, steps=HALF)
    cluster.edit(uri="s3://models/other")
    cluster.settle()
    cluster.edit(uri="s3://models/second")
    cluster.remove(Ref(POD, cluster.list_serving_pods()[0]))
    change_to_pause(cluster, "second")
    assert cluster.list_answering(KEY.name)

    check_targets_after_each_write(cluster)
    cluster.edit(uri="s3://models/third")
    cluster.settle()


def check_targets_after_each_write(cluster: DelayedCluster) -> None:
    def check(_: object) -> None:
        for target in cluster.list_targets():
            assert cluster.list_answering(target), f"no pod answers for {target}"

    cluster.after_write = check


def test_a_change_there_and_back_in_place_leaves_no_service_without_pods_while_the_gateway_is_late() -> None:
    cluster, _ = begin(1, TRAFFIC, HALF)
    change_to_pause(cluster, "other")
    second = cluster.decision().wanted
    check_targets_after_each_write(cluster)
    cluster.edit(uri="s3://models/magika", minReplicas=2)
    cluster.reconcile()
    cluster.run_agents()  # the pod serves the first revision again, and the route leads to the second one
    cluster.edit(uri="s3://models/other")
    cluster.settle()
    assert second in cluster.list_targets()
    cluster.accept_routes()
    for _ in range(3):
        cluster.advance(4)
        cluster.request(f"promote {cluster.status.observed_generation}")
    cluster.advance(4)
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.list_answers(KEY.name) == [second] * 2


def test_endpoint_slices_that_are_late_do_not_give_requests_to_a_pod_of_another_revision() -> None:
    cluster, stable = begin(1, TRAFFIC, warmup={}, maxReplicas=4)
    [name] = cluster.list_serving_pods()
    cluster.remove(Ref(POD, name))
    cluster.run_replica_sets()
    cluster.edit(warmup=None)
    cluster.lists_pods = False
    deployment = copy.deepcopy(cluster.objects[Ref(DEPLOYMENT, stable)])
    deployment["spec"]["replicas"] = 2  # by the autoscaler
    cluster.put(deployment)
    cluster.advance(2)
    served = {cluster.agent_of(name).serves for name in cluster.list_serving_pods()}
    assert served == {stable, cluster.decision().wanted}
    assert set(cluster.list_answers(stable)) == {stable}
