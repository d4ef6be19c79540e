"""Which images pods run: in the status by digest, and an event when a tag has been moved between two pods."""

from conch.decide import Event
from tests.unit.simulation import Cluster, build_manifest

OLD, NEW = "example.com/triton@sha256:0ld", "example.com/triton@sha256:new"


def run(cluster: Cluster, revision: str, index: int, image: str, *, ready: bool = True) -> None:
    containers = [{"name": "agent", "imageID": "example.com/agent"}, {"name": "triton", "imageID": image}]
    cluster.put_pod(revision, index, ready=ready, containerStatuses=containers)


def images(cluster: Cluster) -> list[str]:
    return list(cluster.status.revisions[0].images)


def test_pods_of_one_revision_with_different_images_are_an_event() -> None:
    cluster = Cluster(build_manifest(minReplicas=2))
    cluster.reconcile()
    revision = cluster.decision().wanted
    run(cluster, revision, 0, OLD)
    run(cluster, revision, 1, OLD)
    cluster.settle()
    assert images(cluster) == [OLD]
    run(cluster, revision, 1, NEW, ready=False)
    cluster.settle()
    assert images(cluster) == [OLD], "a pod that starts is no reason to write the status"
    run(cluster, revision, 1, NEW)
    cluster.settle()
    assert images(cluster) == [OLD, NEW]
    assert cluster.condition("Ready") == ("True", "Served")
    [event] = [event for event in cluster.story if event.reason == "ImagesDiffer"]
    assert event == Event(
        "Warning",
        "ImagesDiffer",
        "Start",
        f"Pods of {revision} run different images: {OLD}, {NEW}. The tag of the image has been moved. Name the image by"
        " its digest, or delete the pods of the older image.",
    )
    run(cluster, revision, 0, NEW)
    cluster.settle()
    assert images(cluster) == [NEW]
    assert len([event for event in cluster.story if event.reason == "ImagesDiffer"]) == 1


def test_an_image_that_is_not_pulled_yet_counts_for_nothing() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    revision = cluster.decision().wanted
    run(cluster, revision, 0, "")
    cluster.settle()
    assert images(cluster) == []


def test_one_image_under_the_names_of_two_registries_is_one_image() -> None:
    cluster = Cluster(build_manifest(minReplicas=2))
    cluster.reconcile()
    revision = cluster.decision().wanted
    run(cluster, revision, 0, OLD)
    run(cluster, revision, 1, OLD.replace("example.com", "mirror.example.com"))
    cluster.settle()
    assert images(cluster) == [OLD]
    assert not [event for event in cluster.story if event.reason == "ImagesDiffer"]
