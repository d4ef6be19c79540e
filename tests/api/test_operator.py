"""The operator on a real API server: what it writes, what it does not, and what a kill cannot break."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.operator import (
    CHILDREN,
    OURS,
    Audit,
    Kubectl,
    Operator,
    condition,
    essence,
    isvc,
    settled,
    wait_for,
)
from tests.cluster import Cluster

REST_SECONDS = 60
MANY = 50


@pytest.fixture(scope="module")
def cluster(api_server: Path) -> Cluster:
    assert api_server.exists()
    return Cluster("conch-api")


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Kubectl:
    kubectl = Kubectl(cluster)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "crds/")
    kubectl("wait", "--for=condition=Established", "crd/inferenceservices.conch.dev", "--timeout=30s")
    return kubectl


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")[:50].rstrip("-") + f"-{int(time.time()) % 100000}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "operator.log"


def test_a_new_service_costs_a_write_a_child_and_one_status(
    cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kubectl.apply(isvc("first"), namespace=namespace)
        wait_for("the operator works", settled(kubectl, namespace))
        audit = Audit(cluster)
        kubectl.apply(isvc(minReplicas=1, maxReplicas=3), namespace=namespace)
        wait_for("both services are Ready", settled(kubectl, namespace, 2))
        writes = audit.writes(namespace)
        children = kubectl.get(namespace, CHILDREN, "-l", f"{OURS}=magika")
        ours = [child for child in children if child["metadata"]["ownerReferences"][0]["kind"] == "InferenceService"]
        assert len(ours) == 7
        first_status = next(i for i, write in enumerate(writes) if "inferenceservices/status" in write)
        assert first_status == len(ours), f"children first, each once, then the status: {writes}"
        assert [w for w in writes[: len(ours)] if not w.startswith("patch ")] == []

        time.sleep(10)  # the HPA looks a first time, and the status tells what it said
        audit = Audit(cluster)
        time.sleep(REST_SECONDS)
        assert audit.writes(namespace) == [], "a service at rest costs nothing"


def test_a_restart_with_many_services_writes_nothing(
    cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path
) -> None:
    with Operator(cluster, log) as operator:
        kubectl.apply(*(isvc(f"s{number}") for number in range(MANY)), namespace=namespace)
        wait_for("all are Ready", settled(kubectl, namespace, MANY), 180)
        operator.stop()
        audit = Audit(cluster)
        operator.start()
        wait_for("it watches again", lambda: operator.said().count("watching") == 2)
        time.sleep(15)
        assert audit.writes() == []


def test_killed_at_random_moments_it_ends_at_the_same_objects(
    cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path
) -> None:
    def story(chance: random.Random | None) -> dict[str, object]:
        """Create and update; with chance, be killed in the middle of both, again and again."""
        with Operator(cluster, log) as operator:
            for uri in ("s3://models/one", "s3://models/two"):
                kubectl.apply(isvc(uri=uri), namespace=namespace)
                for _ in range(5 if chance else 0):
                    assert chance is not None
                    time.sleep(chance.uniform(0.0, 2.5))
                    operator.kill()
                    operator.start()
                wait_for(f"{uri} is Ready", settled(kubectl, namespace), 120)
                wait_for("one Deployment is left", lambda: len(kubectl.get(namespace, "deployments")) == 1)
            final = essence(kubectl, namespace)
            kubectl("-n", namespace, "delete", "isvc", "--all")
            wait_for("the children are gone", lambda: not kubectl.get(namespace, CHILDREN, "-l", OURS))
        return final

    undisturbed = story(None)
    seed = int(time.time())
    assert story(random.Random(seed)) == undisturbed, f"seed {seed}"  # noqa: S311  no secret


def test_of_two_operators_one_acts_and_the_other_takes_over(
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    lease = {"CONCH_LEASE_NAMESPACE": namespace}
    with (
        Operator(cluster, tmp_path / "a.log", POD_NAME="a", **lease) as first,
        Operator(cluster, tmp_path / "b.log", POD_NAME="b", **lease) as second,
    ):
        wait_for("one leads", lambda: "leading" in first.said() + second.said(), 30)
        acting, other = (first, second) if "leading" in first.said() else (second, first)
        kubectl.apply(isvc(), namespace=namespace)
        wait_for("the service is Ready", settled(kubectl, namespace))
        assert "leading" not in other.said()
        acting.kill()
        began = time.monotonic()
        wait_for("the other leads", lambda: "leading" in other.said(), 30)
        record_property("failover_after_SIGKILL_seconds", round(time.monotonic() - began, 1))
        acting.start()
        kubectl.apply(isvc(uri="s3://models/two"), namespace=namespace)
        wait_for("the change is served", settled(kubectl, namespace))
        assert acting.said().count("leading") == 1, "who was killed stands by now"
        other.stop()
        began = time.monotonic()
        wait_for("it leads again", lambda: acting.said().count("leading") == 2, 30)
        record_property("failover_after_SIGTERM_seconds", round(time.monotonic() - began, 1))


def test_hands_that_change_children_are_undone(cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path) -> None:
    with Operator(cluster, log):
        kubectl.apply(isvc(minReplicas=2), namespace=namespace)
        wait_for("the service is Ready", settled(kubectl, namespace))
        name = kubectl.get(namespace, "deployments")[0]["metadata"]["name"]
        kubectl("-n", namespace, "scale", f"deployment/{name}", "--replicas=5")
        wait_for("the replicas are back", lambda: kubectl.get(namespace, "deployments")[0]["spec"]["replicas"] == 2, 5)
        kubectl("-n", namespace, "delete", "service/magika")
        wait_for("the Service is back", lambda: kubectl.get(namespace, "services", "-l", OURS)[1:], 5)
        kubectl("-n", namespace, "delete", f"deployment/{name}")
        wait_for("the Deployment is back", lambda: kubectl.get(namespace, "deployments"), 5)
        wait_for("the service is Ready", settled(kubectl, namespace))


def ready_message(kubectl: Kubectl, namespace: str, name: str) -> str:
    """Return what the Ready condition of a service says."""
    services = kubectl.get(namespace, "isvc")
    body = next(service for service in services if service["metadata"]["name"] == name)
    return condition(body, "Ready").get("message", "")


def test_a_strangers_service_is_never_taken(cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "magika"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    kubectl.apply(theirs, namespace=namespace)
    before = kubectl.get(namespace, "services")[0]
    with Operator(cluster, log):
        kubectl.apply(isvc(), namespace=namespace)
        wait_for(
            "the status names it",
            lambda: condition(kubectl.get(namespace, "isvc")[0], "Ready").get("reason") == "NameTaken",
        )
        message = condition(kubectl.get(namespace, "isvc")[0], "Ready")["message"]
        assert "Service/magika exists and belongs to nobody" in message
        after = next(s for s in kubectl.get(namespace, "services") if s["metadata"]["name"] == "magika")
        assert after == before
        kubectl("-n", namespace, "delete", "service/magika")
        wait_for("the service is Ready", settled(kubectl, namespace), 90)

        revision = kubectl.get(namespace, "deployments")[0]["metadata"]["name"]
        kubectl.apply(isvc(revision), namespace=namespace)  # its Service would be the other one's revision Service
        wait_for(
            "the status names the other service",
            lambda: "belongs to InferenceService/magika" in ready_message(kubectl, namespace, revision),
        )
        assert condition(kubectl.get(namespace, "isvc")[0], "Ready")["status"] == "True"


def test_a_pod_that_the_api_server_refuses_is_told_in_its_words(
    cluster: Cluster, kubectl: Kubectl, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kubectl.apply(isvc(), namespace=namespace)
        wait_for("the service is Ready", settled(kubectl, namespace))
        kubectl.apply(isvc(pod={"tolerations": [{"operator": "Sometimes"}]}), namespace=namespace)
        wait_for(
            "the refusal is told",
            lambda: condition(kubectl.get(namespace, "isvc")[0], "Ready").get("reason") == "Invalid",
        )
        body = kubectl.get(namespace, "isvc")[0]
        assert "tolerations" in condition(body, "Ready")["message"]
        assert condition(body, "Serving")["status"] == "True"
        kubectl.apply(isvc(pod={"tolerations": [{"operator": "Exists"}]}), namespace=namespace)
        wait_for("the mended service is Ready", settled(kubectl, namespace))
