"""Stories of services on GPUs: a change needs GPUs for both revisions, and they suffice or not."""

from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, SERVICE, Ref
from conch.api.names import ANNOTATION_STABLE
from conch.cli.status import build_status_text
from tests.unit.simulation import GPU, KEY, Cluster, build_manifest

ON_A_GPU: dict[str, Any] = {"resources": {"limits": {GPU: 1}}}


def start_on_gpus(
    gpus: int | None, on_insufficient_capacity: str = "Hold", rollout: dict[str, Any] | None = None
) -> tuple[Cluster, str]:
    """Start a service of two pods on a node with `gpus` GPUs; return the serving revision too."""
    cluster = Cluster(
        build_manifest(
            rollout={"onInsufficientCapacity": on_insufficient_capacity, **(rollout or {})}, minReplicas=2, **ON_A_GPU
        )
    )
    cluster.gpus = gpus
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster, stable


def change(cluster: Cluster, uri: str = "s3://models/v2") -> str:
    """Change the model; return the wanted revision."""
    cluster.edit(uri=uri)
    cluster.settle()
    return cluster.decision().wanted


def start(cluster: Cluster, revision: str) -> None:
    """Start the wanted pods of a revision."""
    cluster.start_pods(revision)
    cluster.settle()


def read_replicas(cluster: Cluster, revision: str) -> int:
    """Return spec.replicas of a revision's Deployment; 0 without one."""
    deployment = cluster.objects.get(Ref(DEPLOYMENT, revision))
    return deployment["spec"]["replicas"] if deployment else 0


def read_rollout(cluster: Cluster) -> tuple[str, str]:
    """Return admission and reason of the rollout."""
    found = cluster.status.rollout
    return (found.admission, found.reason) if found else ("", "")


def find_serving_revision(cluster: Cluster) -> str:
    name: str = cluster.objects[Ref(SERVICE, KEY.name)]["metadata"]["annotations"][ANNOTATION_STABLE]
    return name


def test_a_rollout_with_sufficient_gpus_goes_by_its_steps() -> None:
    cluster, _ = start_on_gpus(4)
    new = change(cluster)
    assert read_rollout(cluster) == ("Admitted", "MinimumReplicasUnavailable")
    start(cluster, new)
    assert find_serving_revision(cluster) == new
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_rollout_without_sufficient_gpus_is_held_with_the_sum_until_there_are() -> None:
    cluster, stable = start_on_gpus(2)
    new = change(cluster)
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (2, 0)
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "InsufficientGPU")
    assert ready.message == (
        f"Revision {new} needs 2 more pods with 1 {GPU} each; 0 fit: 2 of 2 {GPU} on eligible nodes are allocated."
        " To go on: free 2, lower replicas, or set rollout.onInsufficientCapacity to Recreate or Swap."
    )
    complete = cluster.status.condition("RolloutComplete")
    assert complete is not None
    assert complete.message == ready.message
    assert cluster.condition("Serving")[0] == "True"
    assert cluster.condition("Reconciling")[0] == "True"
    assert cluster.condition("Stalled") == ("", "")
    assert [event.reason for event in cluster.story].count("InsufficientGPU") == 1

    cluster.now += 24 * 3600
    assert cluster.settle() == 0, "a hold has no deadline, and writes nothing"
    cluster.gpus = 4
    cluster.settle()
    assert read_rollout(cluster) == ("Admitted", "MinimumReplicasUnavailable")
    assert read_replicas(cluster, new) == 2
    cluster.now += 14 * 60
    cluster.settle()
    assert read_rollout(cluster) == ("Admitted", "MinimumReplicasUnavailable"), (
        "the deadline counts from the end of the hold"
    )
    start(cluster, new)
    assert find_serving_revision(cluster) == new
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_candidate_starts_no_pod_before_the_capacity_is_known() -> None:
    cluster, _ = start_on_gpus(4)
    cluster.knows_gpus = False
    new = change(cluster)
    assert read_rollout(cluster) == ("Pending", "CheckingCapacity")
    assert read_replicas(cluster, new) == 0
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    cluster.knows_gpus = True
    cluster.settle()
    assert read_rollout(cluster)[0] == "Admitted"


def test_capacity_for_some_of_the_pods_is_insufficient() -> None:
    cluster, _ = start_on_gpus(3)
    new = change(cluster)
    assert read_replicas(cluster, new) == 0
    assert cluster.status.rollout is not None
    count = "; 1 fits: 2 of 3 nvidia.com/gpu on eligible nodes are allocated. To go on: free 1,"
    assert count in cluster.status.rollout.message


def test_a_rollout_with_unknown_capacity_goes_by_its_steps() -> None:
    cluster, _ = start_on_gpus(None)
    new = change(cluster)
    assert read_rollout(cluster) == ("Unknown", "MinimumReplicasUnavailable")
    assert read_replicas(cluster, new) == 2


def test_a_surge_and_pods_without_gpus_need_no_capacity() -> None:
    cluster, _ = start_on_gpus(2, "Surge")
    new = change(cluster)
    assert read_rollout(cluster) == ("", "MinimumReplicasUnavailable")
    assert read_replicas(cluster, new) == 2
    plain = Cluster(build_manifest())
    plain.reconcile()
    plain.start_pods(plain.decision().wanted)
    plain.settle()
    change(plain)
    assert read_rollout(plain) == ("", "MinimumReplicasUnavailable")


def test_recreate_with_insufficient_gpus_ends_the_old_pods_first_and_records_it() -> None:
    steps = {"steps": [{"weight": 0}, {"pause": "Manual"}]}
    cluster, stable = start_on_gpus(2, "Recreate", steps)
    new = change(cluster)
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (0, 0)
    assert [(e.type, e.action) for e in cluster.story if e.reason == "InsufficientGPU"] == [("Warning", "Recreate")]
    cluster.gpus = 20
    cluster.settle()
    assert read_replicas(cluster, stable) == 0, "decided once"
    cluster.end_pods()
    cluster.settle()
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (0, 2)
    assert read_rollout(cluster) == ("Insufficient", "MinimumReplicasUnavailable")
    lines = [line for line in build_status_text(cluster.snapshot().service, cluster.now) if isinstance(line, str)]
    begins = f"Rollout of {new} (Recreate): Progressing, step 0 of 1 (weight: 100)"
    assert any(line.startswith(begins) for line in lines)
    start(cluster, new)
    assert find_serving_revision(cluster) == new, "no other revision has requests, so the steps are skipped"
    assert cluster.condition("Ready") == ("True", "Served")


def test_recreate_with_sufficient_gpus_goes_by_its_steps() -> None:
    cluster, stable = start_on_gpus(4, "Recreate", {"steps": [{"weight": 0}, {"pause": "Manual"}]})
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    assert read_rollout(cluster) == ("Admitted", "WaitsForPromotion")
    assert read_replicas(cluster, stable) == 2


def test_a_recreated_candidate_that_fails_gives_the_gpus_back() -> None:
    cluster, stable = start_on_gpus(2, "Recreate")
    new = change(cluster)
    cluster.end_pods()
    cluster.settle()
    cluster.now += 16 * 60
    cluster.settle()
    assert cluster.condition("Stalled")[0] == "True"
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (2, 0)
    start(cluster, stable)
    assert cluster.condition("Serving")[0] == "True"


def test_recreate_ends_no_pod_for_pods_that_would_not_fit() -> None:
    cluster, stable = start_on_gpus(2, "Recreate")
    cluster.edit(uri="s3://models/v2", resources={"limits": {GPU: 2}})
    cluster.settle()
    assert read_replicas(cluster, stable) == 2
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")
    message = cluster.status.rollout.message  # type: ignore[union-attr]
    assert f"Without the pods of {stable}, 1 would fit. To go on: free 2 {GPU} on one node for each of 2" in message
    assert "onInsufficientCapacity" not in message


@pytest.mark.parametrize("request_", ["promote 2", "promote 2/0"])
def test_a_user_may_override_the_capacity_check(request_: str) -> None:
    cluster, stable = start_on_gpus(2)
    new = change(cluster)
    cluster.request(request_)
    cluster.settle()
    assert read_rollout(cluster) == ("Overridden", "MinimumReplicasUnavailable")
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (2, 2)


def test_a_user_aborts_and_retries_a_held_rollout() -> None:
    cluster, stable = start_on_gpus(2)
    new = change(cluster)
    cluster.request("abort 2")
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "Aborted")
    cluster.gpus = 4
    cluster.settle()
    assert read_replicas(cluster, new) == 0
    cluster.gpus = 2
    cluster.request("retry 2")
    cluster.settle()
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")
    assert (read_replicas(cluster, stable), read_replicas(cluster, new)) == (2, 0)


def test_a_held_rollout_can_be_paused_and_is_still_held_afterwards() -> None:
    cluster, _ = start_on_gpus(2)
    new = change(cluster)
    cluster.request("pause 2")
    cluster.settle()
    assert read_rollout(cluster) == ("Pending", "PausedByUser")
    assert read_replicas(cluster, new) == 0
    cluster.request("")
    cluster.settle()
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")


def test_lower_replicas_let_a_held_rollout_go() -> None:
    cluster, stable = start_on_gpus(2)
    new = change(cluster)
    cluster.edit(minReplicas=1)
    cluster.settle()
    assert read_replicas(cluster, stable) == 1, "while it is held, the service follows its spec"
    cluster.end_pods()
    cluster.settle()
    assert read_rollout(cluster)[0] == "Admitted"
    assert read_replicas(cluster, new) == 1


def test_a_replaced_candidate_frees_its_gpus_for_the_next() -> None:
    cluster, stable = start_on_gpus(4, "Recreate")
    second = change(cluster)
    cluster.start_pods(second)
    cluster.edit(uri="s3://models/v3")
    cluster.reconcile()
    for index in range(2):
        cluster.put_pod(second, index, ready=True)  # its Deployment is gone; they take a while to go
    cluster.settle()
    third = cluster.decision().wanted
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")
    assert f"The pods of {second} are terminating" in cluster.status.rollout.message  # type: ignore[union-attr]
    assert read_replicas(cluster, stable) == 2, "GPUs become free: the stable revision keeps its pods"
    cluster.kill_pods(second)
    cluster.settle()
    assert read_replicas(cluster, third) == 2


def test_the_fix_of_a_first_revision_that_never_came_up_takes_its_gpus() -> None:
    cluster = Cluster(build_manifest(minReplicas=2, **ON_A_GPU))
    cluster.gpus = 2
    cluster.reconcile()
    broken = cluster.decision().wanted
    cluster.start_pods(broken, ready=False)
    cluster.settle()
    fixed = change(cluster)
    assert read_rollout(cluster)[0] == "Insufficient", "with any onInsufficientCapacity: no revision serves"
    cluster.end_pods()
    cluster.settle()
    start(cluster, fixed)
    assert find_serving_revision(cluster) == fixed


def test_a_rollout_that_began_before_there_was_a_budget_goes_on() -> None:
    cluster, _ = start_on_gpus(4)
    new = change(cluster)
    body = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]
    del body["status"]["rollout"]["admission"]
    cluster.put(body)
    cluster.gpus = 2
    cluster.settle()
    assert read_rollout(cluster) == ("", "MinimumReplicasUnavailable")
    assert read_replicas(cluster, new) == 2


def test_an_autoscaled_service_scales_while_it_is_held() -> None:
    cluster = Cluster(build_manifest(minReplicas=1, maxReplicas=4, **ON_A_GPU))
    cluster.gpus = 3
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable, count=2)
    cluster.settle()
    change(cluster)
    assert "needs 2 more pods" in cluster.status.rollout.message  # type: ignore[union-attr]
    autoscaler = cluster.snapshot().autoscaler(stable)
    assert autoscaler is not None
    assert autoscaler["spec"]["minReplicas"] == 1, (
        "its minReplicas is not raised to the replicas at the beginning of the hold"
    )


def test_a_variant_is_held_on_its_own() -> None:
    cluster, _ = start_on_gpus(3)
    cluster.edit_variants({"name": "b", "predictor": {"minReplicas": 1}})
    cluster.settle()
    first = cluster.decision("b").wanted
    start(cluster, first)
    cluster.edit_variants({"name": "b", "predictor": {"minReplicas": 1, "model": {"storageUri": "s3://models/b2"}}})
    cluster.settle()
    [variant] = cluster.status.variants
    assert variant.rollout is not None
    assert (variant.rollout.admission, variant.rollout.reason) == ("Pending", "InsufficientGPU")
    assert cluster.status.rollout is None
    assert "Variant b: Revision" in str(cluster.status.condition("Ready"))


def test_one_change_of_predictor_and_variant_takes_the_free_gpus_once() -> None:
    cluster, stable = start_on_gpus(4)
    cluster.edit_variants({"name": "b", "predictor": {"minReplicas": 1}})
    cluster.settle()
    first = cluster.decision("b").wanted
    start(cluster, first)
    cluster.gpus = 5
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new, other = cluster.decision().wanted, cluster.decision("b").wanted
    assert other != first
    assert (read_replicas(cluster, new), read_replicas(cluster, other)) == (2, 0), (
        "the variant's would have been the third"
    )
    [variant] = cluster.status.variants
    assert variant.rollout is not None
    assert (
        f"0 fit: 3 of 5 {GPU} on eligible nodes are allocated, and 2 {GPU} reserved for pods that start"
        in variant.rollout.message
    )
    start(cluster, new)
    assert find_serving_revision(cluster) == new
    cluster.end_pods()
    cluster.kill_pods(stable)
    cluster.settle()
    assert read_replicas(cluster, other) == 1


def test_a_restart_of_the_operator_repeats_no_event() -> None:
    cluster, _ = start_on_gpus(2)
    change(cluster)
    cluster.knows_gpus = False
    assert cluster.settle() == 0
    assert read_rollout(cluster) == ("Pending", "InsufficientGPU")


@pytest.mark.parametrize("on_insufficient_capacity", ["Recreate", "Hold"])
def test_a_revert_restores_the_old_pods_that_recreate_has_ended(on_insufficient_capacity: str) -> None:
    cluster, stable = start_on_gpus(2, "Recreate")
    change(cluster)
    cluster.end_pods()
    cluster.settle()
    cluster.edit_rollout(onInsufficientCapacity=on_insufficient_capacity)
    third = change(cluster, "s3://models/v3")
    cluster.settle()
    if on_insufficient_capacity == "Recreate":
        assert read_rollout(cluster)[0] == "Insufficient"
        assert (read_replicas(cluster, stable), read_replicas(cluster, third)) == (0, 2)
    else:
        assert read_rollout(cluster) == ("Pending", "InsufficientGPU"), "GPUs reserved for the old pods are not free"
        assert (read_replicas(cluster, stable), read_replicas(cluster, third)) == (2, 0)
