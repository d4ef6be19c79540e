"""The autoscaler alone owns the number of pods: it scales, and turning it on or off loses no pod."""

from __future__ import annotations

from collections.abc import Callable

from conch.api.kinds import AUTOSCALER
from conch_contract import names
from tests.support import filetypes
from tests.support.doubling import build_predictor
from tests.support.kube import Kube
from tests.support.numbers import Numbers
from tests.support.place import Place
from tests.support.service import Service
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until

CPU = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
METRICS = [
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "triton",
            "target": {"type": "Utilization", "averageUtilization": 70},
        },
    }
]
QUIET = {"scaleDown": {"stabilizationWindowSeconds": 300}}


def test_a_service_scales_under_load_and_no_writer_fights_the_autoscaler(
    place: Place, kube: Kube, serve: Callable[..., Service]
) -> None:
    service = serve("scaled", resources=CPU, maxReplicas=2, autoscaling={"metrics": METRICS, "behavior": QUIET})
    revision = service.until_ready()["stable"]
    with (
        Numbers(kube, service.namespace, revision, ".spec.replicas") as replicas,
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, filetypes.picture_request("scaled"), Mix(grpc=2, fresh=2, kept=0, rate=10)),
    ):
        service.until_condition("Autoscaling", "True")
        until(lambda: len(service.ready_pods()) == 2, "two pods are ready", seen=lambda: replicas.seen)
        service.until_ready()
    assert set(replicas.seen) == {1, 2}
    assert replicas.seen == sorted(replicas.seen), "another writer removed the new pod"
    owners = [
        entry["manager"]
        for entry in service.deployment(revision)["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert "conch" not in owners


def test_turning_it_on_and_off_loses_no_pod(kube: Kube, serve: Callable[..., Service]) -> None:
    service = serve("switched", **build_predictor(2), minReplicas=2, resources=CPU)
    revision = service.until_ready()["stable"]
    with Numbers(kube, service.namespace, revision, ".spec.replicas") as replicas:
        service.patch({"predictor": {"maxReplicas": 3, "autoscaling": {"metrics": METRICS}}})
        until(lambda: len(service.children(AUTOSCALER)) == 1, "there is an autoscaler")
        service.until_condition("Autoscaling", "True")
        service.patch({"predictor": {"maxReplicas": None, "autoscaling": None}})
        until(lambda: not service.children(AUTOSCALER), "the autoscaler is gone")
        status = service.until_ready()
        assert service.condition("Autoscaling") == {}
    assert status["stable"] == revision, "it restarted pods"
    assert set(replicas.seen) == {2}
