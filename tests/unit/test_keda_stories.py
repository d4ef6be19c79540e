"""Stories of a service that KEDA scales: its ScaledObject, and a service scaled to zero."""

from collections.abc import Mapping
from typing import Any

import pytest

from conch.api.kinds import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, SERVICE, Kind, Ref
from conch.decide import build_measurement_request
from conch.plan import Apply, Delete, Release
from conch_contract import AgentReport, ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest, build_report, start_revision
from tests.unit.test_gpu_stories import ON_A_GPU

PROMETHEUS = "http://prometheus:9090"
OWN: dict[str, Any] = {"type": "kafka", "metadata": {"topic": "pictures", "lagThreshold": "50"}}
AWAY: dict[str, Any] = {"minReplicas": 0, "maxReplicas": 3, "autoscaling": {"triggers": [OWN]}}
CPU: dict[str, Any] = {
    "type": "ContainerResource",
    "containerResource": {
        "name": "cpu",
        "container": "triton",
        "target": {"type": "Utilization", "averageUtilization": 70},
    },
}
PODS: dict[str, Any] = {
    "type": "Pods",
    "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "1"}},
}


def start_service(prometheus: str = PROMETHEUS, **predictor: Any) -> Cluster:
    """Start a service in a cluster with KEDA."""
    rollout = predictor.pop("rollout", None)
    cluster = Cluster(build_manifest(rollout=rollout, **predictor), metrics_api="keda", prometheus=prometheus)
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    return cluster


def scale(cluster: Cluster, revision: str, replicas: int) -> None:
    """Write the number of pods as KEDA does, and end all of them at 0."""
    body = cluster.objects[Ref(DEPLOYMENT, revision)]
    body["spec"]["replicas"] = replicas
    cluster.put(body)
    if not replicas:
        cluster.kill_pods(revision)


def put_new_pod(cluster: Cluster, revision: str, *, ready: bool = True, report: AgentReport | None = None) -> None:
    """Write a pod in the place of the one that KEDA removed."""
    cluster.put_pod(revision, 0, ready=ready, report=report, generation="new")


def start_scaled_to_zero(**predictor: Any) -> Cluster:
    """Start a service and scale it to zero."""
    cluster = start_service("", **{**AWAY, **predictor})
    scale(cluster, cluster.decision().wanted, 0)
    cluster.settle()
    return cluster


def read_scaled_object(cluster: Cluster, revision: str = "") -> Mapping[str, Any]:
    spec: Mapping[str, Any] = cluster.objects[Ref(SCALED_OBJECT, revision or cluster.decision().wanted)]["spec"]
    return spec


def read_min_replicas(cluster: Cluster, revision: str) -> int:
    return int(read_scaled_object(cluster, revision)["minReplicaCount"])


def find_selected_revision(cluster: Cluster) -> str:
    root = cluster.objects[Ref(SERVICE, KEY.name)]["spec"]["selector"]
    return str(root[names.LABEL_REVISION])


def put_scaled_object_conditions(cluster: Cluster, **conditions: str) -> None:
    """Write the conditions of the ScaledObject, as KEDA does."""
    body = cluster.objects[Ref(SCALED_OBJECT, cluster.decision().wanted)]
    body["status"] = {
        "conditions": [
            {"type": kind, "status": status, "reason": f"{kind}{status}", "message": "as observed"}
            for kind, status in conditions.items()
        ]
    }
    cluster.put(body)
    cluster.settle()


def test_keda_has_the_replicas_and_conch_writes_no_autoscaler() -> None:
    cluster = start_service(minReplicas=2, maxReplicas=5)
    revision = cluster.decision().wanted
    spec = read_scaled_object(cluster)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": revision}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 5)
    assert not [ref for ref in cluster.objects if ref.kind == AUTOSCALER]
    assert "advanced" not in spec
    assert "cooldownPeriod" not in spec


def test_autoscaling_fields_become_triggers() -> None:
    autoscaling = {"requestsPerSecond": "1k", "inferenceLatency": "50ms", "metrics": [CPU], "triggers": [OWN]}
    cluster = start_service(maxReplicas=5, autoscaling=autoscaling)
    own, rate, latency, cpu = read_scaled_object(cluster)["triggers"]
    pods = f'namespace="demo",pod=~"{cluster.decision().wanted}-[a-z0-9]+-[a-z0-9]{{5}}",model="magika"'
    assert own == OWN
    assert rate == {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": PROMETHEUS,
            "query": f"sum(rate(nv_inference_request_success{{{pods}}}[1m]))"
            f" + sum(rate(nv_inference_request_failure{{{pods}}}[1m]))",
            "threshold": "1000",
        },
    }
    assert (latency["metricType"], latency["metadata"]["threshold"]) == ("Value", "0.05")
    assert cpu == {
        "type": "cpu",
        "metricType": "Utilization",
        "metadata": {"containerName": "triton", "value": "70"},
    }


def test_default_triggers_are_the_queue_and_the_cpu_that_pods_request() -> None:
    def list_trigger_types(prometheus: str, **predictor: Any) -> list[str]:
        cluster = start_service(prometheus, maxReplicas=2, **predictor)
        return [trigger["type"] for trigger in read_scaled_object(cluster)["triggers"]]

    cpu = {"resources": {"requests": {"cpu": "1"}}}
    assert list_trigger_types(PROMETHEUS) == ["prometheus"]
    assert list_trigger_types(PROMETHEUS, **cpu) == ["prometheus", "cpu"]
    assert list_trigger_types("", **cpu) == ["cpu"]


def test_scaling_speed_is_the_behavior_of_the_autoscaler() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    spec = read_scaled_object(start_service(maxReplicas=2, autoscaling={"pendingRequests": 4, "behavior": behavior}))
    assert spec["advanced"] == {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    assert spec["cooldownPeriod"] == 60, "also for the last pod"


def test_a_revision_serves_with_a_pod_before_it_scales_to_zero() -> None:
    cluster = Cluster(build_manifest(**AWAY), metrics_api="keda")
    cluster.settle()
    revision = cluster.decision().wanted
    assert read_min_replicas(cluster, revision) == 1
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    cluster.start_pods(revision)
    cluster.settle()
    assert read_min_replicas(cluster, revision) == 0
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_service_scaled_to_zero_is_ready_and_writes_nothing() -> None:
    cluster = start_scaled_to_zero()
    assert cluster.condition("Ready") == ("True", "ScaledToZero")
    assert cluster.condition("Serving") == ("True", "ScaledToZero")
    assert cluster.condition("RolloutComplete") == ("True", "Complete")
    assert cluster.condition("Reconciling") == cluster.condition("Stalled") == ("", "")
    [revision] = cluster.status.revisions
    assert (revision.phase, revision.replicas.ready, revision.replicas.desired) == ("ScaledToZero", 0, 0)
    assert cluster.status.ready == "0/0"
    cluster.now += 10_000
    assert cluster.reconcile() == []
    assert cluster.decision().wait is None


def test_a_service_scales_up_from_zero() -> None:
    cluster = start_scaled_to_zero()
    revision = cluster.decision().wanted
    scale(cluster, revision, 1)
    put_new_pod(cluster, revision, ready=False)
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "WakingUp")
    assert cluster.condition("Serving") == ("Unknown", "WakingUp")
    assert read_min_replicas(cluster, revision) == 0, "KEDA may scale it to zero"
    put_new_pod(cluster, revision)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.condition("Serving") == ("True", "Answering")


def test_a_failure_to_scale_up_from_zero_is_reported() -> None:
    cluster = start_scaled_to_zero()
    revision = cluster.decision().wanted
    scale(cluster, revision, 1)
    put_new_pod(cluster, revision, ready=False)
    cluster.settle()
    put_new_pod(cluster, revision, ready=False, report=build_report(ModelState.FAILED, "FetchFailed", "no such bucket"))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "FetchFailed")
    assert cluster.condition("Serving") == ("False", "NoReadyPods")


def test_a_change_of_a_service_scaled_to_zero_starts_only_the_new_revision() -> None:
    cluster = start_scaled_to_zero()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert (read_min_replicas(cluster, old), read_min_replicas(cluster, new)) == (0, 1)
    assert cluster.condition("Serving") == ("True", "ScaledToZero")
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    assert Ref(DEPLOYMENT, old) not in cluster.objects
    assert read_min_replicas(cluster, new) == 0, "it has served, and may scale to zero"


def test_a_running_revision_keeps_its_pods_during_a_rollout() -> None:
    cluster = start_service(**AWAY)
    old = find_selected_revision(cluster)
    assert read_min_replicas(cluster, old) == 0
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    assert read_min_replicas(cluster, old) == 1


def test_a_revision_that_requests_start_during_a_rollout_keeps_its_pods() -> None:
    cluster = start_scaled_to_zero()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    scale(cluster, old, 1)
    put_new_pod(cluster, old)
    cluster.settle()
    assert read_min_replicas(cluster, old) == 1


def test_a_parity_job_starts_the_stable_revision() -> None:
    parity: dict[str, Any] = {"rollout": {"analysis": [{"parity": {}}]}, "warmup": {}}
    cluster = start_scaled_to_zero(**parity)
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    assert read_min_replicas(cluster, old) == 1


def test_a_service_with_a_failed_candidate_scales_to_zero() -> None:
    cluster = start_scaled_to_zero()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    cluster.now += 10_000
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "ProgressDeadlineExceeded")
    assert cluster.condition("Serving") == ("True", "ScaledToZero")
    assert read_min_replicas(cluster, old) == 0
    scale(cluster, old, 1)
    put_new_pod(cluster, old)
    cluster.settle()
    assert read_min_replicas(cluster, old) == 0
    assert cluster.condition("Serving") == ("True", "Answering")


def test_recreate_starts_at_once_when_the_old_revision_is_scaled_to_zero() -> None:
    cluster = start_scaled_to_zero(rollout={"strategy": "Recreate"})
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    assert read_min_replicas(cluster, new) == 1
    assert cluster.condition("Serving") == ("False", "NoReadyPods"), "no request starts the old one now"
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new
    assert read_min_replicas(cluster, new) == 0


def test_a_cluster_without_keda_reports_unused_triggers_and_keeps_one_pod() -> None:
    cluster = Cluster(build_manifest(**AWAY))
    cluster.reconcile()
    revision = cluster.decision().wanted
    cluster.start_pods(revision)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.condition("Autoscaling") == ("False", "NeedsKeda")
    condition = cluster.status.condition("Autoscaling")
    assert condition is not None
    assert "minReplicas 0 counts as 1" in condition.message
    assert cluster.objects[Ref(AUTOSCALER, revision)]["spec"]["minReplicas"] == 1
    scale(cluster, revision, 0)
    cluster.settle()
    assert cluster.condition("Ready")[0] != "True", "the pod is missing"


@pytest.mark.parametrize(
    ("autoscaling", "prometheus", "kind", "reason"),
    [
        ({"pendingRequests": 4, "metrics": [CPU]}, "", SCALED_OBJECT, "NoMetricsApi"),
        ({"pendingRequests": 4}, "", AUTOSCALER, "NoMetricsApi"),
        ({"triggers": [OWN], "metrics": [PODS]}, "", SCALED_OBJECT, "NotForKeda"),
        ({"pendingRequests": 4, "metrics": [PODS]}, PROMETHEUS, SCALED_OBJECT, "NotForKeda"),
        ({"metrics": [PODS]}, "", AUTOSCALER, "Pending"),
        ({"metrics": [{**CPU, "containerResource": {"name": "cpu"}}]}, "", AUTOSCALER, "Pending"),
    ],
)
def test_triggers_that_keda_does_not_get_are_reported(
    autoscaling: dict[str, Any], prometheus: str, kind: Kind, reason: str
) -> None:
    cluster = start_service(prometheus, maxReplicas=2, autoscaling=autoscaling)
    assert cluster.condition("Autoscaling")[1] == reason
    assert {ref.kind for ref in cluster.objects} & {AUTOSCALER, SCALED_OBJECT} == {kind}


def test_conditions_of_the_scaled_object_are_reported() -> None:
    cluster = start_service(maxReplicas=2)
    assert cluster.condition("Autoscaling") == ("Unknown", "Pending")
    put_scaled_object_conditions(cluster, Ready="True", Active="False", Paused="False", HPAActive="True")
    assert cluster.condition("Autoscaling") == ("True", "TriggersFollowed")
    writes = cluster.status_writes
    put_scaled_object_conditions(cluster, Ready="True", Active="True", Paused="False", HPAActive="True")
    assert cluster.status_writes == writes, "a change of Active writes no status"
    put_scaled_object_conditions(cluster, Ready="True", HPAActive="False")
    assert cluster.condition("Autoscaling") == ("False", "HPAActiveFalse")
    put_scaled_object_conditions(cluster, Ready="False", HPAActive="False")
    assert cluster.condition("Autoscaling") == ("False", "ReadyFalse")
    put_scaled_object_conditions(cluster, Ready="True", Paused="True")
    assert cluster.condition("Autoscaling") == ("False", "PausedTrue")


def test_keda_takes_over_from_an_autoscaler_without_a_jump() -> None:
    cluster = Cluster(build_manifest(maxReplicas=5))
    cluster.reconcile()
    revision = cluster.decision().wanted
    scale(cluster, revision, 4)
    cluster.start_pods(revision)
    cluster.settle()
    cluster.metrics_api, cluster.prometheus = "keda", PROMETHEUS
    actions = cluster.reconcile()
    kinds = [(type(action), action.ref.kind) for action in actions]
    assert kinds == [(Delete, AUTOSCALER), (Apply, SCALED_OBJECT)], "KEDA rejects the target of an autoscaler"
    assert cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]["replicas"] == 4


@pytest.mark.parametrize("leaves", ["the installer", "the user"])
def test_a_service_scaled_to_zero_gets_a_pod_for_the_autoscaler_when_keda_goes(leaves: str) -> None:
    cluster = start_scaled_to_zero()
    revision = cluster.decision().wanted
    if leaves == "the installer":
        cluster.metrics_api = "builtin"
        cluster.remove(Ref(SCALED_OBJECT, revision))
    else:
        cluster.edit(minReplicas=1, autoscaling=None)
    cluster.settle()
    assert cluster.objects[Ref(AUTOSCALER, revision)]["spec"]["minReplicas"] == 1
    assert cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]["replicas"] == 1, (
        "it leaves a Deployment with 0 replicas alone"
    )
    assert Ref(SCALED_OBJECT, revision) not in cluster.objects


def test_autoscaling_that_is_turned_on_and_off_hands_the_replicas_over() -> None:
    cluster = start_service(minReplicas=3)
    cluster.edit(maxReplicas=5)
    actions = cluster.reconcile()
    revision = cluster.decision().wanted
    assert isinstance(actions[0], Release)
    cluster.settle()
    cluster.edit(maxReplicas=None)
    cluster.settle()
    assert Ref(SCALED_OBJECT, revision) not in cluster.objects
    assert cluster.objects[Ref(DEPLOYMENT, revision)]["spec"]["replicas"] == 3


def test_a_variant_scales_to_zero_on_its_own() -> None:
    body = build_manifest(maxReplicas=2, autoscaling={"triggers": [OWN]})
    body["spec"]["variants"] = [{"name": "b", "predictor": {"minReplicas": 0, "model": {"storageUri": "s3://m/b"}}}]
    cluster = Cluster(body, metrics_api="keda")
    cluster.reconcile()
    main, variant = cluster.decision().wanted, cluster.decision("b").wanted
    cluster.start_pods(main)
    cluster.start_pods(variant)
    cluster.settle()
    assert (read_min_replicas(cluster, main), read_min_replicas(cluster, variant)) == (1, 0)
    scale(cluster, variant, 0)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    [variant_status] = cluster.status.variants
    ready = variant_status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "ScaledToZero")


def test_a_shadow_scaled_to_zero_needs_no_measurement_of_its_copies() -> None:
    traffic = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}
    body = build_manifest(traffic=traffic, maxReplicas=2, autoscaling={"triggers": [OWN]})
    body["spec"]["variants"] = [{"name": "b", "mirror": "50%", "predictor": {"minReplicas": 0}}]
    cluster = Cluster(body, metrics_api="keda")
    cluster.reconcile()
    main, shadow = cluster.decision().wanted, cluster.decision("b").wanted
    cluster.start_pods(main)
    start_revision(cluster, shadow)
    assert build_measurement_request(cluster.snapshot()).models.keys() == {main, shadow}
    scale(cluster, shadow, 0)
    cluster.settle()
    assert not build_measurement_request(cluster.snapshot()).models
    assert cluster.condition("Ready") == ("True", "Served")


@pytest.mark.parametrize("on_insufficient_capacity", ["Hold", "Recreate"])
def test_a_change_of_a_service_scaled_to_zero_uses_the_gpu_that_it_left(on_insufficient_capacity: str) -> None:
    """A revision scaled to zero has no pods, and its GPU is still free: no pod has to start first."""
    cluster = start_scaled_to_zero(**ON_A_GPU)
    cluster.edit_rollout(onInsufficientCapacity=on_insufficient_capacity)
    cluster.settle()
    old = find_selected_revision(cluster)
    cluster.gpus = 0
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    held = cluster.status.rollout
    assert held is not None
    assert (held.admission, held.reason) == ("Pending", "InsufficientGPU")
    cluster.gpus = 1
    cluster.now += 60
    cluster.settle()
    new = cluster.decision().wanted
    assert (read_min_replicas(cluster, old), read_min_replicas(cluster, new)) == (0, 1)
    cluster.start_pods(new)
    cluster.settle()
    assert find_selected_revision(cluster) == new


def test_a_revision_that_is_drained_for_a_candidate_is_not_reported_as_scaled_to_zero() -> None:
    """No trigger starts the pods, so requests have no answer until the candidate has its pods."""
    cluster = start_service(**AWAY, **ON_A_GPU)
    cluster.edit_rollout(onInsufficientCapacity="Recreate")
    cluster.gpus = 1
    cluster.settle()
    old = find_selected_revision(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    assert cluster.status.rollout is not None
    assert (cluster.status.rollout.strategy, cluster.status.rollout.admission) == ("Recreate", "Insufficient")
    cluster.kill_pods(old)
    cluster.settle()
    assert cluster.snapshot().replicas(old) == 0
    revision = cluster.status.revision(old)
    assert revision is None or revision.phase != "ScaledToZero"
    assert cluster.condition("Serving") == ("False", "NoReadyPods")
