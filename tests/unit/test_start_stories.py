"""Stories of pods that have a node and do not start, or are refused: only an event of the cluster has the reason."""

import asyncio

import pytest

from conch.api.kinds import JOB, POD, Ref, ServiceKey
from conch.decide import find_stuck_objects
from conch.observe import Finding
from conch.signals import Warnings
from tests.unit.simulation import KEY, Cluster, build_manifest

SCHEDULED = {"type": "PodScheduled", "status": "True", "reason": "", "message": ""}
MOUNT = Finding("FailedMount", 'MountVolume.SetUp failed for volume "rules" : secret "rules" not found')
QUOTA = Finding("FailedCreate", 'Error creating: pods "x" is forbidden: exceeded quota: narrow')


def put_starting_pod(cluster: Cluster, revision: str) -> str:
    """Put a pod on a node that starts no container. Return its uid."""
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-12T13:46:40Z"}
    cluster.put_pod(revision, 0, ready=False, phase="Pending", conditions=[unready, SCHEDULED])
    return str(cluster.objects[Ref(POD, f"{revision}-0")]["metadata"]["uid"])


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (MOUNT, "VolumeNotMounted"),
        (Finding("FailedAttachVolume", "Multi-Attach error for volume"), "VolumeNotMounted"),
        (Finding("FailedCreatePodSandBox", "failed to set up the network"), "PodNotStarted"),
    ],
)
def test_a_pod_that_has_a_node_and_does_not_start_reports_the_event(event: Finding, reason: str) -> None:
    cluster = Cluster(build_manifest())
    cluster.settle()
    uid = put_starting_pod(cluster, cluster.decision().wanted)
    cluster.warnings[uid] = event
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "Progressing"), "a pod may take a moment"
    cluster.now += 11
    cluster.settle()
    assert cluster.condition("Ready") == ("False", reason)
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert event.message in ready.message
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


def test_events_of_a_pod_that_is_stuck_for_long_are_listed_less_often() -> None:
    cluster = Cluster(build_manifest())
    cluster.settle()
    uid = put_starting_pod(cluster, cluster.decision().wanted)
    began, periods = cluster.now, []
    for seconds in (5, 11, 200, 86_400):
        cluster.now = began + seconds
        periods.append(find_stuck_objects(cluster.snapshot()).get(uid))
    assert periods[:2] == [None, 9], "it may take a moment"
    assert periods[3] == 60
    assert periods[2] == pytest.approx(20, abs=1)


def test_an_old_event_of_another_kind_is_no_reason() -> None:
    cluster = Cluster(build_manifest())
    cluster.settle()
    uid = put_starting_pod(cluster, cluster.decision().wanted)
    cluster.warnings[uid] = Finding("FailedScheduling", "0/2 nodes are available")
    cluster.now += 60
    cluster.settle()
    assert cluster.condition("Ready") == ("Unknown", "Progressing")


def test_a_job_whose_pod_the_cluster_refuses_reports_this_and_fails_for_that_reason() -> None:
    cluster = Cluster(build_manifest(warmup={}, rollout={"progressDeadline": "5m"}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    cluster.start_pods(stable)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    cluster.start_pods(new)
    cluster.settle()
    job = cluster.objects[Ref(JOB, f"{new}-warmup")]
    cluster.warnings[job["metadata"]["uid"]] = QUOTA
    assert cluster.decision().wait == 10, "without any event the Job is read"
    cluster.now += 11
    cluster.settle()
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == ("Progressing", "JobPodsRefused")
    assert f"Job {new}-warmup: Error creating" in rollout.message
    cluster.now += 301
    cluster.settle()
    assert cluster.condition("Stalled") == ("True", "JobPodsRefused")
    assert cluster.condition("Serving")[0] == "True"
    assert cluster.status.stable == stable


async def test_events_of_each_stuck_object_are_requested_once_a_period_and_a_new_one_wakes_its_service() -> None:
    requests: list[tuple[str, str]] = []
    woken: asyncio.Queue[ServiceKey] = asyncio.Queue()
    again = asyncio.Event()

    async def read_event(namespace: str, uid: str) -> Finding | None:
        requests.append((namespace, uid))
        if len(requests) > 3:
            again.set()
        return MOUNT if uid == "a" else None

    warnings, both = Warnings(woken.put_nowait, read_event), {"a": 0.05, "b": 0.05}
    assert warnings.request(KEY, both) == {}
    assert await asyncio.wait_for(woken.get(), 5) == KEY
    assert warnings.request(KEY, both) == {"a": MOUNT}
    await asyncio.sleep(0)
    assert requests == [(KEY.namespace, "a"), (KEY.namespace, "b")], "one request a period"
    assert warnings.request(KEY, {"a": 0.05}) == {"a": MOUNT}
    await asyncio.wait_for(again.wait(), 5)
    assert set(requests[2:]) == {(KEY.namespace, "a")}
    assert woken.empty(), "the same event wakes no service"
    assert warnings.request(KEY, {}) == {}
    assert warnings.request(KEY, {"a": 0.05}) == {}, "an object that is no longer stuck is removed"
    await warnings.close()
