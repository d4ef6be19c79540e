"""The operator and the EndpointSlices of a real API server, which the real EndpointSlice controller writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api.kinds import DEPLOYMENT, ENDPOINT_SLICE, INFERENCE_SERVICE, POD, SERVICE
from conch_contract import names
from tests.api.operator import Audit, Operator, are_ready, condition, isvc
from tests.cluster import Cluster
from tests.cluster.controlplane import CONTROLLERS
from tests.support.kube import Kube, Object
from tests.support.wait import until

STEPS = [{"pause": "Manual"}, {"weight": 100}]


@contextlib.contextmanager
def no_controllers(cluster: Cluster) -> Iterator[None]:
    """Let EndpointSlices stay as they are for a while."""
    cluster.stop_component(CONTROLLERS)
    try:
        yield
    finally:
        cluster.start_component(CONTROLLERS)


def service(kube: Kube, namespace: str) -> Object:
    return kube.get(INFERENCE_SERVICE, namespace, "magika") or {}


def ready(kube: Kube, namespace: str) -> tuple[str, str]:
    found = condition(service(kube, namespace), "Ready")
    return found.get("status", ""), found.get("reason", "")


def selected(kube: Kube, namespace: str) -> str:
    """The revision that the root Service selects."""
    root = kube.get(SERVICE, namespace, "magika") or {}
    return str(root.get("spec", {}).get("selector", {}).get(names.LABEL_REVISION, ""))


def listed(kube: Kube, namespace: str) -> set[str]:
    """The revisions whose pods the EndpointSlices of the root Service list as ready."""
    slices = kube.list(ENDPOINT_SLICE, namespace, "kubernetes.io/service-name=magika")
    points = [point for each in slices for point in each.get("endpoints") or () if point["conditions"]["ready"]]
    uids = {point["targetRef"]["uid"] for point in points}
    pods = [pod for pod in kube.list(POD, namespace) if pod["metadata"]["uid"] in uids]
    return {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in pods}


def at_the_pause(kube: Kube, namespace: str) -> tuple[str, str]:
    """Bring a second revision as far as the pause; return the names of both."""
    body = isvc()
    body["spec"]["rollout"] = {"steps": STEPS}
    kube.apply(body, namespace)
    until(are_ready(kube, namespace), "the service is Ready")
    old = selected(kube, namespace)
    body = isvc(uri="s3://models/two")
    body["spec"]["rollout"] = {"steps": STEPS}
    kube.apply(body, namespace)

    def waits() -> str:
        status = service(kube, namespace)["status"]
        there = {each["name"]: each["replicas"]["ready"] for each in status["revisions"]}
        waits = (status.get("rollout") or {}).get("reason") == "WaitsForPromotion"
        return str(status["candidate"]) if waits and there.get(status["candidate"]) else ""

    return old, until(waits, "the candidate's pods are ready")


def find_statuses(audit: Audit, namespace: str) -> list[str]:
    """Find the writes of the status since the switch; one before it may still be of the new revision."""
    writes = audit.writes(namespace)
    return [write for write in writes[writes.index("patch services magika") :] if "inferenceservices/status" in write]


def request(kube: Kube, namespace: str, verb: str) -> None:
    generation = service(kube, namespace)["metadata"]["generation"]
    kube.run(
        "--namespace", namespace, "annotate", "--overwrite", "isvc/magika", f"conch.dev/rollout={verb} {generation}"
    )


@pytest.mark.timeout(400)
def test_a_switch_is_ready_when_the_endpoint_slices_list_the_new_pods_alone(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log) as operator:
        old, new = at_the_pause(kube, namespace)
        with no_controllers(cluster):
            audit = Audit(cluster)
            request(kube, namespace, "promote")
            until(lambda: selected(kube, namespace) == new, "the root Service selects the new revision")
            until(
                lambda: ready(kube, namespace) == ("Unknown", "EndpointsPending"),
                "the status has what it waits for",
            )
            message = condition(service(kube, namespace), "Ready")["message"]
            assert f"Requests to Service magika go to revision {new} when its EndpointSlices list" in message
            time.sleep(5)
            assert len(find_statuses(audit, namespace)) == 1, audit.writes(namespace)
            writes = audit.writes(namespace)
            assert listed(kube, namespace) == {old}
            assert ready(kube, namespace) == ("Unknown", "EndpointsPending")
            assert condition(service(kube, namespace), "Serving")["status"] == "True"
            assert kube.get(DEPLOYMENT, namespace, old), "its pods are listed"

            operator.kill()  # what it waits for it reads from the cluster again
            operator.start()
            until(lambda: operator.log().count("watching") == 2, "it watches again")
            time.sleep(3)
            assert audit.writes(namespace) == writes
        until(are_ready(kube, namespace), "the service is Ready")
        assert listed(kube, namespace) == {new}
        until(lambda: kube.get(DEPLOYMENT, namespace, old) is None, "the old Deployment is gone")
        assert len(find_statuses(audit, namespace)) <= 3, "the switch, its end, and the pods that went"


@pytest.mark.timeout(400)
def test_a_return_to_the_old_revision_does_not_wait_for_endpoint_slices(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        old, new = at_the_pause(kube, namespace)
        with no_controllers(cluster):
            request(kube, namespace, "promote")
            until(lambda: ready(kube, namespace)[1] == "EndpointsPending", "the switch waits")
            body = isvc()
            body["spec"]["rollout"] = {"steps": []}
            kube.apply(body, namespace)
            until(lambda: selected(kube, namespace) == old, "the root Service selects the old revision again")
            until(lambda: ready(kube, namespace)[0] == "True", "the EndpointSlices list it")
            until(lambda: kube.get(DEPLOYMENT, namespace, new) is None, "the other Deployment is gone")
        until(are_ready(kube, namespace), "the service is Ready")
        assert listed(kube, namespace) == {old}


def test_a_service_that_scales_and_loses_slices_has_the_matching_conditions(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    """Scaling is no reason not to be Ready; a Service without EndpointSlices is one."""
    with Operator(cluster, log):
        kube.apply(isvc(minReplicas=1, maxReplicas=4), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        since = condition(service(kube, namespace), "Ready")["lastTransitionTime"]
        name = kube.list(DEPLOYMENT, namespace)[0]["metadata"]["name"]
        for count in (4, 1, 3):
            kube.run("--namespace", namespace, "scale", f"deployment/{name}", f"--replicas={count}")

            def counted(count: int = count) -> bool:
                [revision] = service(kube, namespace)["status"]["revisions"]
                return bool(revision["replicas"]["ready"] == count)

            until(counted, f"{count} pods are ready")
        assert condition(service(kube, namespace), "Ready")["lastTransitionTime"] == since

        with no_controllers(cluster):
            kube.run("--namespace", namespace, "delete", "service/magika")
            until(lambda: selected(kube, namespace) == name, "the Service is back")
            until(lambda: ready(kube, namespace) == ("Unknown", "EndpointsPending"), "the status reports it")
            assert kube.get(DEPLOYMENT, namespace, name)
        until(are_ready(kube, namespace), "the service is Ready")
