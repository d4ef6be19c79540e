"""What the status reports of a Swap: pods that load, wait for clients or for a node, and that have started again."""

import copy

from conch.api.kinds import DEPLOYMENT, POD, Ref
from conch.api.names import ANNOTATION_SERVES
from conch_contract import ModelState, names
from tests.unit.simulation import Cluster
from tests.unit.test_swap_in_place import begin_with_one, get_pod
from tests.unit.test_swap_stories import at, begin, change, load_all


def test_a_way_back_in_place_is_ready_when_the_agent_has_reported_it() -> None:
    """Triton cancels no load: what was given up answers clients once it is loaded, and until it is replaced."""
    cluster, stable = begin_with_one()
    change(cluster)
    cluster.swap(ModelState.LOADING)
    cluster.settle()
    cluster.edit(model=at("magika"))  # back, while Triton loads the other model
    cluster.settle()
    cluster.swap(ModelState.LOADING, reason="WaitsForLoad")
    cluster.settle()
    assert get_pod(cluster)["metadata"]["annotations"][ANNOTATION_SERVES] == stable, "it is changing"
    assert cluster.condition("Ready") != ("True", "Served"), "no agent has reported that it serves"


def test_a_way_back_in_place_is_reported_as_a_load_and_not_as_endpoints() -> None:
    """The Service lists the only pod all the time; what takes time is the load of the old model."""
    cluster, _stable = begin_with_one({"steps": [{"weight": 50}, {"pause": "1h"}]})
    change(cluster)
    load_all(cluster)
    cluster.edit(model=at("magika"))
    cluster.settle()
    cluster.swap(ModelState.LOADING)
    cluster.settle()
    assert cluster.condition("Ready") != ("Unknown", "EndpointsPending")


def test_an_abort_in_place_names_what_serves() -> None:
    """After an abort the candidate answers until the old model is loaded again."""
    cluster, stable = begin_with_one({"steps": [{"weight": 50}, {"pause": "1h"}]})
    candidate = change(cluster)
    load_all(cluster)
    cluster.request(f"abort {cluster.status.observed_generation}")
    cluster.settle()
    cluster.swap(ModelState.LOADING)
    cluster.settle()
    messages = {each.type: each.message for each in cluster.status.conditions}
    assert messages["Serving"] == f"Requests go to revision {candidate}."
    assert f"{stable} serves on" not in messages["Ready"], messages["Ready"]


def test_a_swap_of_scaled_pods_is_complete_when_all_serve_it() -> None:
    """The pod that changes last answers the old model over connections that clients keep, until its load ends."""
    cluster, stable = begin({"strategy": "Swap"}, minReplicas=1, maxReplicas=3)
    deployment = copy.deepcopy(cluster.objects[Ref(DEPLOYMENT, stable)])
    deployment["spec"]["replicas"] = 3  # by the autoscaler
    cluster.put(deployment)
    for index in (1, 2):
        cluster.put_pod(stable, index, ready=True)
    load_all(cluster, rounds=1)
    candidate = change(cluster)
    while cluster.status.stable != candidate:
        cluster.swap()
        cluster.settle()
    # The last pod is assigned, and its agent loads.
    served = [
        cluster.reports[pod["metadata"]["uid"]].revision for ref, pod in cluster.objects.items() if ref.kind == POD
    ]
    assert served.count(candidate) == 2, served
    assert cluster.condition("Ready") != ("True", "Served"), "a pod answers the old model"


def test_a_rollout_that_fails_since_clients_keep_their_connections_reports_it() -> None:
    cluster, _ = begin({"strategy": "Swap"})
    change(cluster)
    message = "Clients that keep their connections to this pod still send requests to double."
    cluster.swap(ModelState.LOADING, reason="WaitsForClients", message=message)
    cluster.settle()
    rollout = cluster.status.rollout
    assert rollout is not None
    waits = rollout.message
    cluster.now += 901
    cluster.settle()
    assert cluster.condition("Stalled")[0] == "True"
    rollout = cluster.status.rollout
    assert rollout is not None
    assert message in rollout.message, (waits, rollout.message)


def test_a_swap_for_which_a_pod_has_no_node_reports_it() -> None:
    """Two pods are requested and one has a node: no pod may change, for the reason that Ready had before."""
    cluster, stable = begin({"strategy": "Swap"}, minReplicas=2)
    cluster.remove(Ref(POD, f"{stable}-1"))
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-12T13:46:40Z"}
    cluster.put_pod(stable, 1, ready=False, generation="2", phase="Pending", conditions=[ready, scheduled])
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "Unschedulable")
    change(cluster)
    assert cluster.condition("Ready") == ("False", "Unschedulable"), cluster.status.rollout


def _end_agent(cluster: Cluster, ref: Ref, *, ready: bool, times: int) -> None:
    body = {**cluster.objects[ref]}
    agent = {
        "name": names.AGENT_CONTAINER,
        "ready": ready,
        "restartCount": times,
        "state": {"running": {}},
        "lastState": {
            "terminated": {
                "reason": "Error",
                "exitCode": 1,
                "startedAt": "1970-01-01T23:00:00Z",
                "finishedAt": "1970-01-02T00:00:00Z",
            }
        },
    }
    body["status"] = {**body["status"], "initContainerStatuses": [agent]}
    cluster.put(body)


def test_restarts_under_earlier_revisions_are_no_crash_loop_of_the_candidate() -> None:
    """A pod lives on from revision to revision, and its restarts with it; its agent is not ready while it changes."""
    cluster, _stable = begin({"strategy": "Swap"})
    for ref in [ref for ref in cluster.objects if ref.kind == POD]:
        _end_agent(cluster, ref, ready=True, times=2)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    cluster.now += 30 * 86400
    candidate = change(cluster)
    for _ in range(8):
        for ref, pod in list(cluster.objects.items()):
            if ref.kind == POD:  # the agent is not ready while its pod changes
                is_changing = names.LABEL_REVISION not in pod["metadata"]["labels"]
                _end_agent(cluster, ref, ready=not is_changing, times=2)
                if is_changing:
                    pod["status"]["conditions"][0]["status"] = "False"
        cluster.settle()
        assert cluster.condition("Stalled") != ("True", "CrashLooping"), cluster.status.rollout
        cluster.swap()
        cluster.settle()
    assert cluster.status.stable == candidate
