"""The reasons why a revision does not start, and their messages."""

from typing import Any

import pytest

from conch.api import InferenceService, pod
from conch.api.kinds import DEPLOYMENT, POD, Ref
from conch.api.pod import LEAST_GRACE_SECONDS
from conch.api.times import format_time
from conch.desire import PodDefaults
from conch.desire.pod import build_pod_template
from conch.triton import DRAIN_SECONDS, END_SECONDS
from conch_contract import AgentReport, ModelReport, ModelState, ModelWarning
from conch_contract.report import CRASH_SUSPECTED, LOAD_CRASHED, MODEL_NOT_SERVED, REQUESTS_CRASHED
from tests.unit.simulation import KEY, Cluster, build_manifest, build_report


def build_waiting_status(name: str, reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": name, "ready": False, "restartCount": 0, "state": state}]}


def build_crash_status(restarts: int, *, running: bool, code: int = 137) -> dict[str, Any]:
    state = {"running": {}} if running else {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"reason": "OOMKilled", "exitCode": code}}
    status = {"name": "triton", "ready": False, "restartCount": restarts, "state": state, "lastState": last}
    return {"containerStatuses": [status]}


def build_unscheduled_status() -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: no GPU"}
    return {"phase": "Pending", "podIP": "", "conditions": [condition]}


PULL = 'rpc error: "registry/none:1": not found'
POD_STATUSES: list[tuple[str, dict[str, Any], str, str]] = [
    ("no node", build_unscheduled_status(), "Unschedulable", "0/2 nodes: no GPU"),
    ("pull", build_waiting_status("triton", "ErrImagePull", PULL), "ImagePullFailed", PULL),
    (
        "pull, in the kubelet's other words",
        build_waiting_status(
            "triton", "ImagePullBackOff", f'Back-off pulling image "registry/none:1": ErrImagePull: {PULL}'
        ),
        "ImagePullFailed",
        PULL,
    ),
    (
        "config",
        build_waiting_status("triton", "CreateContainerConfigError", 'secret "x" not found'),
        "ContainerConfigInvalid",
        'secret "x" not found',
    ),
    ("hook", build_waiting_status("triton", "PostStartHookError", "exited with 7"), "PodNotStarted", "exited with 7"),
    ("a reason of a later kubelet", build_waiting_status("triton", "NotYetKnown"), "PodNotStarted", "NotYetKnown"),
    ("crash", build_crash_status(3, running=False), "CrashLooping", "OOMKilled, exit code 137"),
    (
        "bus error",
        build_crash_status(3, running=False, code=135),
        "CrashLooping",
        "Raise spec.predictor.triton.shmSize",
    ),
    ("crash, running for a moment", build_crash_status(3, running=True), "CrashLooping", "--previous"),
]


@pytest.mark.parametrize(
    ("status", "reason", "words"), [row[1:] for row in POD_STATUSES], ids=[r[0] for r in POD_STATUSES]
)
def test_a_pod_that_does_not_start_is_reported_with_its_reason(status: dict[str, Any], reason: str, words: str) -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, report=build_report(ModelState.PENDING), **status)
    cluster.settle()
    assert cluster.condition("Ready") == ("False", reason)
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert words in ready.message
    assert [event.reason for event in cluster.story] == ["RevisionCreated", reason]


def test_a_single_restart_is_no_crash_loop() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, **build_crash_status(1, running=True))
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "Progressing")


@pytest.mark.parametrize("reason", [LOAD_CRASHED, REQUESTS_CRASHED])
@pytest.mark.parametrize("required", [True, False])
def test_a_model_that_ends_triton_is_named_before_its_container(required: bool, reason: str) -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    warnings = () if required else (ModelWarning(reason=MODEL_NOT_SERVED, message="not served"),)
    others = ModelReport(name="other", state=ModelState.LOADING)
    culprit = ModelReport(
        name="bad", state=ModelState.FAILED, reason=reason, message="Triton ended 2 times.", warnings=warnings
    )
    report = AgentReport(ready=False, models=(others, culprit))
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, report=report, **build_crash_status(3, running=False))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", reason)
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert "Model bad: Triton ended 2 times." in ready.message


def test_several_models_of_which_one_ends_triton_are_in_the_message_about_its_container() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    warning = ModelWarning(reason=CRASH_SUSPECTED, message="Each time these had answered some: pre and post.")
    model = ModelReport(name="post", state=ModelState.LOADING, digest="sha256:1", warnings=(warning,))
    report = AgentReport(ready=False, models=(model,))
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, report=report, **build_crash_status(3, running=False))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "CrashLooping")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert "Each time these had answered some: pre and post. See: kubectl logs" in ready.message
    [event] = [event for event in cluster.story if event.reason == CRASH_SUSPECTED]
    assert event.type == "Warning"


EVICTED: dict[str, Any] = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": 'Usage of EmptyDir volume "conch-tmp" exceeds the limit "10Gi". ',
}


def fail_pod(cluster: Cluster, index: int, *, deleted: bool = False, **status: Any) -> None:
    """Fail a pod of the wanted revision; a new pod is created at the current time."""
    revision = cluster.decision().wanted
    known = cluster.objects.get(Ref(POD, f"{revision}-{index}"))
    cluster.put_pod(revision, index, ready=False, **{**EVICTED, **status})
    body = cluster.objects[Ref(POD, f"{revision}-{index}")]
    if known:
        body["metadata"]["creationTimestamp"] = known["metadata"]["creationTimestamp"]
    if deleted:
        body["metadata"]["deletionTimestamp"] = format_time(cluster.now)
    cluster.put(body)


def is_reported(cluster: Cluster) -> bool:
    cluster.settle()
    return cluster.condition("Ready") == ("False", "PodsFail")


def test_pods_that_the_kubelet_evicts_one_after_the_other_are_reported_for_ten_minutes() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    fail_pod(cluster, 0)
    assert not is_reported(cluster), "one failed pod is no finding"
    cluster.now += 300
    fail_pod(cluster, 1)
    assert is_reported(cluster)
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert 'Evicted: Usage of EmptyDir volume "conch-tmp" exceeds the limit "10Gi". Store less' in ready.message
    written = cluster.status_writes
    for index in range(2, 9):
        cluster.now += 10
        fail_pod(cluster, index)
        assert is_reported(cluster)
    assert cluster.status_writes == written, "the next one writes no status"
    cluster.now += 601
    assert not is_reported(cluster)


def test_a_pod_that_fails_after_minutes_without_ready_failed_when_its_containers_ended() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    fail_pod(cluster, 0)
    cluster.now += 5
    fail_pod(cluster, 1)
    cluster.now += 900
    ended = {"terminated": {"exitCode": 137, "finishedAt": format_time(cluster.now)}}
    fail_pod(cluster, 1, containerStatuses=[{"name": "triton", "restartCount": 0, "state": ended}])
    assert is_reported(cluster)


def test_pods_of_a_node_that_shuts_down_and_deleted_pods_are_no_finding() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    revision = cluster.decision().wanted
    for index in range(2):
        cluster.put_pod(revision, index, ready=False)
    cluster.now += 60
    shut_down: dict[str, Any] = {
        "reason": "Lost",
        "message": "Pod was terminated in response to imminent node shutdown.",
    }
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": format_time(cluster.now)}
    for index in range(2):
        fail_pod(cluster, index, **shut_down, conditions=[ready])
    assert not is_reported(cluster)
    cluster.now += 60
    for index in range(2, 5):
        fail_pod(cluster, index, deleted=True)
    assert not is_reported(cluster)


def test_failures_that_are_hours_apart_and_shutdowns_of_nodes_are_no_finding() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    fail_pod(cluster, 0)
    cluster.now += 5 * 3600
    fail_pod(cluster, 1)
    assert not is_reported(cluster)
    for index in range(2, 5):
        cluster.now += 60
        fail_pod(cluster, index, reason="Terminated", message="Pod was terminated: imminent node shutdown.")
    assert not is_reported(cluster)


def test_pods_that_a_node_refuses_are_reported() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    refused: dict[str, Any] = {"reason": "UnexpectedAdmissionError", "message": "no healthy devices present"}
    for index in range(3):
        cluster.now += 1
        fail_pod(cluster, index, **refused, podIP="", conditions=[{"type": "Ready", "status": "False"}])
    assert is_reported(cluster)


def test_the_termination_message_of_a_pod_is_bounded() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    for index in range(3):
        cluster.now += 1
        fail_pod(cluster, index, reason="R" * 1_000_000, message="m" * 1_000_000)
    assert is_reported(cluster)
    [body, *_] = (body for ref, body in cluster.store.objects(KEY).items() if ref.kind == POD)
    assert len(str(body)) < 3000
    later = {"type": "Ready", "status": "False", "lastTransitionTime": format_time(cluster.now + 1e6)}
    cluster.now += 601
    fail_pod(cluster, 9, conditions=[later])
    assert not is_reported(cluster), "a time in the future is ignored"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "a" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded"),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest"', "PodsRefused"),
    ],
)
def test_pods_that_the_cluster_refuses_are_reported(message: str, reason: str) -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    ref = Ref(DEPLOYMENT, cluster.decision().wanted)
    body = cluster.objects[ref]
    body["status"] = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}
    cluster.put(body)
    cluster.settle()
    assert cluster.condition("Ready") == ("False", reason)


def test_an_autoscaler_without_metrics_is_reported_and_its_numbers_are_not() -> None:
    cluster = Cluster(build_manifest(minReplicas=1, maxReplicas=3))
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.start_pods(name)
    cluster.settle()
    body = cluster.objects[next(ref for ref in cluster.objects if ref.kind.name == "HorizontalPodAutoscaler")]
    for number in (1, 2):
        body["status"] = {
            "currentReplicas": number,
            "conditions": [
                {
                    "type": "ScalingActive",
                    "status": "False",
                    "reason": "FailedGetResourceMetric",
                    "message": "missing request for cpu",
                    "lastTransitionTime": str(number),
                }
            ],
        }
        cluster.put(body)
        cluster.settle()
    assert cluster.condition("Autoscaling") == ("False", "FailedGetResourceMetric")
    writes_before = cluster.status_writes
    body["status"]["currentReplicas"] = 7
    cluster.put(body)
    cluster.settle()
    assert cluster.status_writes == writes_before


def test_the_least_grace_period_that_a_user_may_set_outlasts_the_drain() -> None:
    assert LEAST_GRACE_SECONDS > DRAIN_SECONDS
    assert DRAIN_SECONDS + END_SECONDS == pod.END_SECONDS


@pytest.mark.parametrize(
    ("predictor", "grace", "ends"),
    [
        ({}, 45, 30),
        ({"longestRequest": "2m"}, 135, 120),
        ({"longestRequest": "1.5s"}, 17, 2),
        ({"longestRequest": "2h"}, 7215, 7200),
        ({"pod": {"terminationGracePeriodSeconds": 120}}, 120, 105),
        ({"longestRequest": "1m", "pod": {"terminationGracePeriodSeconds": 80}}, 80, 65),
        ({"pod": {"terminationGracePeriodSeconds": 20}}, 20, 5),
    ],
)
def test_the_timers_of_a_request_follow_one_field(predictor: dict[str, Any], grace: int, ends: int) -> None:
    service = InferenceService.parse(build_manifest(**predictor))
    spec = build_pod_template(service, "magika-1", PodDefaults("conch/serving:1", "Always"))["spec"]
    [_, _, script, *_] = spec["containers"][0]["command"]
    assert spec["terminationGracePeriodSeconds"] == grace
    assert f"--exit-timeout-secs={ends} " in script
    kept = 1000 * max(3600, ends)
    assert f"--grpc-max-connection-age-grace={kept} " in script, "a stream is not cut while its pod stays"
