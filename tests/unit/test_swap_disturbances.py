"""Swaps and what happens meanwhile: new pods, lost records, fewer pods, clocks and labels that others wrote."""

import copy
from collections import Counter
from typing import Any

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    INFERENCE_SERVICE,
    POD,
    SERVICE,
    Ref,
)
from conch.api.names import ANNOTATION_ASSIGNED, ANNOTATION_STABLE
from conch.contests import Contests
from conch.plan import Action, Assign
from conch_contract import names
from tests.unit.simulation import KEY, Cluster, build_manifest
from tests.unit.test_swap_stories import at, begin, change, load_all

MANUAL = {"strategy": "Swap", "steps": [{"weight": 25}, {"pause": "Manual"}]}


def swap_to(cluster: Cluster, folder: str) -> str:
    cluster.edit(model=at(folder))
    load_all(cluster)
    return cluster.decision().wanted


def replace_pod(cluster: Cluster, name: str, *, ready: bool = True) -> None:
    """Evict a pod; its ReplicaSet starts another one, with the labels of the template."""
    workload, _, index = name.rpartition("-")
    cluster.remove(Ref(POD, name))
    cluster.settle()
    cluster.put_pod(workload, int(index), ready=ready)
    cluster.settle()


def who_answers(cluster: Cluster) -> Counter[str]:
    """Return how many ready pods of each revision the root Service lists."""
    listed = cluster.snapshot().endpoints["magika"]
    pods = (pod for ref, pod in cluster.objects.items() if ref.kind == POD and pod["metadata"]["uid"] in listed)
    return Counter(map(revision_of, pods))


def revision_of(pod: dict[str, Any]) -> str:
    """Return the revision that a pod has to serve."""
    annotations, labels = pod["metadata"].get("annotations") or {}, pod["metadata"]["labels"]
    return str(annotations.get(ANNOTATION_ASSIGNED) or labels.get(names.LABEL_REVISION, ""))


def start_lacking(cluster: Cluster, workload: str) -> None:
    """Start the pods that a Deployment lacks."""
    cluster.settle()
    for index in range(cluster.objects[Ref(DEPLOYMENT, workload)]["spec"]["replicas"]):
        if Ref(POD, f"{workload}-{index}") not in cluster.objects:
            cluster.put_pod(workload, index, ready=False)


def pods_of(cluster: Cluster, revision: str | None) -> list[str]:
    return [
        ref.name
        for ref, pod in cluster.objects.items()
        if ref.kind == POD and pod["status"]["phase"] == "Running" and revision_of(pod) == revision
    ]


def test_a_new_pod_during_a_second_swap_serves_a_revision_of_it() -> None:
    """No gateway: the root Service selects all pods, so the first revision must not come back."""
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    assert cluster.status.stable == second
    cluster.edit_rollout(**MANUAL)
    third = swap_to(cluster, "c")
    assert cluster.served() == {second: 3, third: 1}
    replace_pod(cluster, pods_of(cluster, second)[0])
    load_all(cluster)
    assert first not in cluster.served(), (cluster.served(), who_answers(cluster))


def test_the_way_back_with_one_pod() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    assert cluster.status.stable == second
    cluster.edit(minReplicas=1)
    cluster.end_pods()
    load_all(cluster)
    cluster.end_pods()
    load_all(cluster)
    assert cluster.served() == {second: 1}
    cluster.edit(model=at("magika"))
    for _ in range(8):
        start_lacking(cluster, first)
        load_all(cluster)
        cluster.now += 200
        cluster.settle()
    assert cluster.status.stable == first, (cluster.status.rollout, cluster.condition("Ready"))


def test_new_pods_on_the_way_back_do_not_exceed_the_step() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    cluster.edit_rollout(**MANUAL)
    assert swap_to(cluster, "magika") == first
    assert cluster.served() == {second: 3, first: 1}
    for name in pods_of(cluster, second)[:2]:
        replace_pod(cluster, name)
        load_all(cluster)
    assert cluster.served() == {second: 3, first: 1}, (cluster.served(), cluster.status.rollout)


def test_a_candidate_whose_pods_are_evicted_is_rolled_back() -> None:
    """Old and new files do not fit on the disk: each pod that loads it is evicted after ten minutes."""
    cluster, _ = begin({"strategy": "Swap"})
    candidate = change(cluster)
    lost = 0
    for round_ in range(12):
        cluster.now += 600
        for name in pods_of(cluster, candidate):
            body = copy.deepcopy(cluster.objects[Ref(POD, name)])
            cluster.remove(Ref(POD, name))
            failed = {**body, "metadata": {**body["metadata"], "name": f"left-{name}-{round_}"}}
            failed["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "ephemeral-storage"}
            cluster.put(failed)
            cluster._gone.discard(body["metadata"]["uid"])
            lost += 1
            workload, _, index = name.rpartition("-")
            cluster.put_pod(workload, int(index), ready=True, generation=str(round_))
        cluster.settle()
        if cluster.status.rollout is not None and cluster.status.rollout.phase == "Failed":
            break
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Failed", f"{lost} serving pods were lost: {cluster.status.rollout}"


def read_manifest(cluster: Cluster, workload: str, revision: str) -> str:
    """Return the manifest that the pods of a workload read to which a revision is assigned."""
    data = cluster.objects[Ref(CONFIG_MAP, workload)]["data"]
    return str(data.get(f"{revision}.json", data[names.MANIFEST_FILE]))


def test_the_record_of_the_stable_revision_may_be_lost_during_a_swap() -> None:
    cluster, stable = begin()
    candidate = change(cluster)
    load_all(cluster)
    assert cluster.served() == {stable: 3, candidate: 1}
    cluster.remove(Ref(CONTROLLER_REVISION, stable))
    cluster.settle()
    assert stable in read_manifest(cluster, stable, stable)


def test_the_record_of_a_swapped_stable_revision_may_be_lost_during_a_rollout() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    cluster.edit_rollout(**MANUAL)
    swap_to(cluster, "c")
    cluster.remove(Ref(CONTROLLER_REVISION, second))
    cluster.settle()
    assert second in read_manifest(cluster, first, second)


def test_the_record_of_a_swapped_stable_revision_may_be_lost_after_a_failure() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    cluster.edit_rollout(**MANUAL)
    swap_to(cluster, "c")
    cluster.request(f"abort {cluster.status.observed_generation}")
    load_all(cluster)
    assert cluster.served() == {second: 4}
    cluster.remove(Ref(CONTROLLER_REVISION, second))
    cluster.settle()
    assert second in read_manifest(cluster, first, second)


def test_what_is_deleted_beside_the_record_of_the_first_revision_comes_back() -> None:
    cluster, first = begin({"strategy": "Swap"})
    cluster.edit(maxReplicas=8)
    second = swap_to(cluster, "second")
    lost = Ref(CONTROLLER_REVISION, first)
    not_ours = (POD, ENDPOINT_SLICE, INFERENCE_SERVICE)
    ours = {ref for ref in cluster.objects if ref.kind not in not_ours} - {
        lost,
        Ref(DEPLOYMENT, first),
        Ref(SERVICE, first),
    }
    cluster.remove(lost)
    cluster.settle()
    for ref in ours:
        cluster.remove(ref)
        cluster.settle()
        assert ours <= cluster.objects.keys(), ref
    assert second in read_manifest(cluster, first, second)
    assert cluster.condition("Ready") == ("True", "Served")
    cluster.edit(minReplicas=5)
    cluster.settle()
    assert cluster.objects[Ref(AUTOSCALER, first)]["spec"]["minReplicas"] == 5


def test_replicas_that_a_deployment_without_its_record_cannot_get_are_reported() -> None:
    cluster, first = begin({"strategy": "Swap"})
    swap_to(cluster, "second")
    cluster.remove(Ref(CONTROLLER_REVISION, first))
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served"), "what serves needs no record"
    cluster.edit(minReplicas=5)
    cluster.settle()
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.reason == "PodTemplateMissing"
    assert f"ControllerRevision {first}, which has the pod template" in ready.message
    cluster.edit(pod={"annotations": {"replaced": "1"}})
    cluster.settle()
    third = cluster.decision().wanted
    cluster.start_pods(third)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.objects[Ref(DEPLOYMENT, third)]["spec"]["replicas"] == 5


def test_a_change_may_mend_a_stable_revision_with_one_ready_pod() -> None:
    cluster, stable = begin({"strategy": "Swap"})
    for index in (1, 2, 3):
        cluster.put_pod(stable, index, ready=False)
    cluster.settle()
    candidate = change(cluster)
    for _ in range(4):
        # The stable revision's files are gone: its three pods stay down.
        for pod in pods_of(cluster, candidate):
            cluster.put_pod(stable, int(pod.rpartition("-")[2]), ready=True)
            uid = cluster.objects[Ref(POD, pod)]["metadata"]["uid"]
            cluster.reports[uid] = cluster.reports[uid].model_copy(update={"revision": candidate})
        cluster.settle()
        cluster.now += 300
        cluster.settle()
    assert cluster.served()[candidate], cluster.status.rollout


def test_pods_that_wait_for_a_node_carry_nothing() -> None:
    """HPA 4 to 8, and four of the eight pods are Pending: a second swap."""
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    assert cluster.status.stable == second
    cluster.edit(maxReplicas=8)
    load_all(cluster)
    deployment = copy.deepcopy(cluster.objects[Ref(DEPLOYMENT, first)])
    deployment["spec"]["replicas"] = 8
    cluster.put(deployment)
    for index in range(4, 8):
        cluster.put_pod(first, index, ready=False, phase="Pending")
    cluster.settle()
    third = None
    cluster.edit(model=at("c"))
    for _ in range(8):
        cluster.settle()
        third = cluster.decision().wanted
        for ref, pod in list(cluster.objects.items()):  # Pending ones load nothing
            if ref.kind == POD and int(ref.name.rpartition("-")[2]) < 4:
                uid = pod["metadata"]["uid"]
                revision = revision_of(pod)
                cluster.reports[uid] = cluster.reports[uid].model_copy(update={"revision": revision})
                body = copy.deepcopy(pod)
                body["status"]["conditions"][0]["status"] = "True"
                cluster.put(body)
    for _ in range(3):
        cluster.now += 500
        cluster.settle()
    assert cluster.status.stable == third, (cluster.status.rollout, cluster.served())


def test_a_clock_that_was_ahead_does_not_stop_the_deadline() -> None:
    cluster, _ = begin({"strategy": "Swap"})
    cluster.now += 36000
    change(cluster)
    cluster.now -= 36000
    writes = cluster.status_writes
    for _ in range(100):
        cluster.now += 20
        cluster.reconcile()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Failed", (cluster.status.rollout, cluster.status_writes - writes)


def test_without_a_pause_a_new_pod_does_not_end_a_second_swap() -> None:
    """As above, at a step that waits for its traffic."""
    cluster, first = begin({"strategy": "Swap"})
    swap_to(cluster, "b")
    cluster.edit_rollout(strategy="Swap", steps=[{"weight": 25}, {"pause": "1m"}, {"weight": 50}])
    third = swap_to(cluster, "c")
    replace_pod(cluster, pods_of(cluster, cluster.status.stable)[0])
    for _ in range(10):
        load_all(cluster)
        cluster.now += 200
        cluster.settle()
    assert cluster.status.stable == third, (cluster.status.rollout, cluster.served(), first)


class Watched(Cluster):
    """A cluster that notes pods of one revision in a Service of another, after each change of a pod's revision."""

    def __init__(self, service: dict[str, Any]) -> None:
        super().__init__(service)
        self.wrong: list[tuple[str, str, str]] = []

    def _act(self, action: Action) -> None:
        super()._act(action)
        if isinstance(action, Assign):
            self.check()

    def check(self) -> None:
        """Each ready pod that a Service with requests selects serves the revision that the Service selects."""
        for ref, service in self.objects.items():
            if ref.kind != SERVICE:
                continue
            selector = service["spec"]["selector"]
            wanted = selector.get(names.LABEL_REVISION)
            if names.LABEL_WORKLOAD in selector:
                wanted = service["metadata"].get("annotations", {}).get(ANNOTATION_STABLE, ref.name)
            for of, pod in self.objects.items():
                labels = pod["metadata"].get("labels", {})
                if of.kind == POD and wanted and all(labels.get(name) == value for name, value in selector.items()):
                    serves = self.reports[pod["metadata"]["uid"]].revision
                    if serves and serves != wanted and pod["status"]["conditions"][0]["status"] == "True":
                        self.wrong.append((ref.name, wanted, serves))


def begin_watched(**fields: Any) -> tuple[Watched, str]:
    cluster = Watched(build_manifest(rollout=MANUAL, minReplicas=4, **fields))
    cluster.reports_on_request = True
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.swap()
    cluster.settle()
    return cluster, stable


def go_on(cluster: Watched) -> None:
    for _ in range(8):
        for ref, pod in list(cluster.objects.items()):  # the kubelet probes the agent
            if ref.kind == POD:
                uid = pod["metadata"]["uid"]
                if cluster.reports[uid].revision != revision_of(pod):
                    body = copy.deepcopy(pod)
                    body["status"]["conditions"][0]["status"] = "False"
                    cluster.put(body)
        cluster.settle()
        cluster.swap()
        cluster.settle()


def test_after_a_rollback_the_root_service_has_no_pod_that_serves_the_failed_revision() -> None:
    cluster, _ = begin_watched()
    cluster.edit(model=at("b"))
    go_on(cluster)
    cluster.wrong = []
    cluster.request(f"abort {cluster.status.observed_generation}")
    go_on(cluster)
    wrong = [each for each in cluster.wrong if each[0] == "magika"]
    assert not wrong, wrong


def test_after_the_end_the_root_service_has_no_pod_that_serves_the_old_revision() -> None:
    cluster, _ = begin_watched()
    cluster.edit(model=at("b"))
    go_on(cluster)
    cluster.wrong = []
    cluster.request(f"promote {cluster.status.observed_generation}")
    go_on(cluster)
    wrong = [each for each in cluster.wrong if each[0] == "magika"]
    assert not wrong, wrong


def test_a_pod_that_a_user_labels_with_a_past_revision_gets_its_own_back() -> None:
    cluster, first = begin({"strategy": "Swap"})
    second = swap_to(cluster, "b")
    cluster.edit_rollout(**MANUAL)
    third = swap_to(cluster, "c")
    [name, *_] = pods_of(cluster, second)
    body = copy.deepcopy(cluster.objects[Ref(POD, name)])
    body["metadata"]["labels"][names.LABEL_REVISION] = first
    cluster.put(body)
    load_all(cluster)
    assert cluster.served() == {second: 3, third: 1}, who_answers(cluster)


def begin_behind_gateway() -> tuple[Cluster, str, str | None]:
    """Return a cluster behind a gateway whose pods have swapped once, and both revisions."""
    cluster, first = begin({"strategy": "Swap"}, traffic={"gateways": [{"name": "public"}], "hostnames": ["a.b"]})
    cluster.edit(model=at("b"))
    for _ in range(12):
        load_all(cluster, 2)
        cluster.accept_routes()
        cluster.settle()
    assert cluster.served() == {cluster.status.stable: 4}
    assert cluster.status.stable != first
    return cluster, first, cluster.status.stable


def test_new_pods_serve_while_a_gateway_refuses_the_route() -> None:
    """No rollout: a listener is gone, and the nodes are drained one after another."""
    cluster, _, second = begin_behind_gateway()
    cluster.accept_routes("False", "NotAllowedByListeners", "no")
    cluster.settle()
    for name in pods_of(cluster, second):
        replace_pod(cluster, name)
        load_all(cluster)
    assert cluster.snapshot().endpoints["magika"], (cluster.served(), cluster.condition("Serving"))


def test_pods_that_wait_for_a_node_carry_nothing_in_a_first_swap() -> None:
    """The control of the story above: where the pods began with the stable revision, they do not count."""
    cluster, first = begin({"strategy": "Swap"})
    cluster.edit(maxReplicas=8)
    load_all(cluster)
    deployment = copy.deepcopy(cluster.objects[Ref(DEPLOYMENT, first)])
    deployment["spec"]["replicas"] = 8
    cluster.put(deployment)
    for index in range(4, 8):
        cluster.put_pod(first, index, ready=False, phase="Pending")
    cluster.settle()
    cluster.edit(model=at("c"))
    for _ in range(8):
        cluster.settle()
        for ref, pod in list(cluster.objects.items()):
            if ref.kind == POD and int(ref.name.rpartition("-")[2]) < 4:
                uid = pod["metadata"]["uid"]
                revision = revision_of(pod)
                cluster.reports[uid] = cluster.reports[uid].model_copy(update={"revision": revision})
                body = copy.deepcopy(pod)
                body["status"]["conditions"][0]["status"] = "True"
                cluster.put(body)
    assert cluster.status.stable != first, (cluster.status.rollout, cluster.served())


def test_fewer_replicas_during_a_swap() -> None:
    cluster, stable = begin({"strategy": "Swap"})
    candidate = change(cluster)
    cluster.edit(minReplicas=1)
    cluster.settle()
    for pod in pods_of(cluster, candidate):  # a ReplicaSet ends pods that are not ready first
        cluster.remove(Ref(POD, pod))
    for pod in pods_of(cluster, stable)[:2]:
        cluster.remove(Ref(POD, pod))
    cluster.settle()
    for _ in range(4):
        start_lacking(cluster, stable)
        load_all(cluster, 3)
        cluster.now += 301
        cluster.settle()
    assert cluster.status.stable == candidate, (cluster.status.rollout, cluster.served())


def lose_pods_of(cluster: Cluster, revision: str) -> None:
    """Remove the pods that serve a revision, so that all others serve another one."""
    for name in pods_of(cluster, revision):
        cluster.remove(Ref(POD, name))


def test_pods_that_only_serve_a_candidate_keep_it_while_others_start() -> None:
    cluster, stable = begin({"strategy": "Swap", "steps": [{"weight": 75}, {"pause": "Manual"}]})
    candidate = change(cluster)
    load_all(cluster)
    assert cluster.served() == {stable: 1, candidate: 3}
    lose_pods_of(cluster, stable)
    cluster.settle()
    assert cluster.served() == {candidate: 3}
    start_lacking(cluster, stable)
    load_all(cluster)
    assert cluster.served() == {stable: 1, candidate: 3}


def test_pods_that_only_serve_a_candidate_go_back_before_the_next_one_begins() -> None:
    cluster, stable = begin({"strategy": "Swap", "steps": [{"weight": 50}, {"pause": "Manual"}]})
    candidate = change(cluster)
    load_all(cluster)
    lose_pods_of(cluster, stable)
    third = change(cluster, model=at("third"))
    assert cluster.served() == {stable: 2}, "the next candidate changes a pod that has left its Services"
    assert set(who_answers(cluster)) <= {stable, candidate}
    start_lacking(cluster, stable)
    load_all(cluster)
    assert cluster.served() == {stable: 2, third: 2}


def test_what_conch_removes_and_writes_again_is_no_contest() -> None:
    """Six swaps in a minute: each adds the manifest of the candidate, and removes that of the revision before."""
    cluster, _ = begin({"strategy": "Swap"})
    contests = Contests()
    for folder in ("other", "magika") * 3:
        cluster.edit(model=at(folder))
        for _ in range(14):
            cluster.swap()
            contests.record(KEY, cluster.reconcile(), cluster.now)
            cluster.now += 0.5
        assert cluster.condition("Ready") == ("True", "Served")
        assert not [str(ref) for ref in cluster.objects if contests.is_contested(KEY, ref)]
