"""The operator on a real API server: what it writes, what it does not, and what a kill cannot break."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conch.api.kinds import DEPLOYMENT, EVENT, INFERENCE_SERVICE, JOB, POD, SERVICE, Ref
from conch.shutdown import END_SECONDS
from conch_contract import names
from tests.api.operator import (
    Audit,
    Operator,
    are_ready,
    children,
    condition,
    essence,
    is_a_write,
    isvc,
    kubeconfig_of,
    relayed,
)
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until

REST_SECONDS = 60
MANY = 50


def test_a_new_service_costs_a_write_a_child_and_one_status(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kube.apply(isvc("first"), namespace)
        until(are_ready(kube, namespace), "the operator works")
        audit = Audit(cluster)
        kube.apply(isvc(minReplicas=1, maxReplicas=3), namespace)
        until(are_ready(kube, namespace, 2), "both services are Ready")
        writes = [write for write in audit.writes(namespace) if " magika" in write]
        ours = children(kube, namespace, "magika")
        assert len(ours) == 7
        first_status = next(i for i, write in enumerate(writes) if "inferenceservices/status" in write)
        assert first_status == len(ours), f"children first, each once, then the status: {writes}"
        assert [w for w in writes[: len(ours)] if not w.startswith("patch ")] == []
        reads = [call for call in audit.calls() if call["verb"] == "get" and call["objectRef"]["resource"] != "leases"]
        assert reads == [], "it applies what must not exist, and reads it only if it does"

        time.sleep(10)  # the first sync of the HPA, and its result in the status
        audit = Audit(cluster)
        time.sleep(REST_SECONDS)
        assert audit.writes(namespace) == [], "a service at rest costs nothing"


def test_a_restart_with_many_services_writes_nothing(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    with Operator(cluster, log) as operator:
        kube.apply([isvc(f"s{number}") for number in range(MANY)], namespace)
        until(are_ready(kube, namespace, MANY), "all are Ready", 180)
        until(lambda: len(kube.list(INFERENCE_SERVICE)) == MANY, "the services of earlier tests are deleted")
        operator.stop()
        audit = Audit(cluster)
        operator.start()
        until(lambda: operator.log().count("watching") == 2, "it watches again")
        time.sleep(15)
        assert audit.writes() == []


def test_an_edit_does_not_wait_for_the_new_services_of_its_namespace(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log, CONCH_WORKERS="1") as operator:
        kube.apply(isvc("edited"), namespace)
        until(are_ready(kube, namespace), "the service that will be edited is Ready")
        audit = Audit(cluster)
        operator.send_signal(signal.SIGSTOP)
        kube.apply([isvc(f"new{number}") for number in range(MANY)], namespace)
        kube.apply(isvc("edited", minReplicas=2), namespace)
        operator.send_signal(signal.SIGCONT)
        until(are_ready(kube, namespace, MANY + 1), "all are Ready", 180)
        deployments = [write for write in audit.writes(namespace) if write.startswith("patch deployments ")]
        edited = next(index for index, write in enumerate(deployments) if " edited-" in write)
        assert edited < MANY // 2, f"{edited} of {MANY} new services came before it"


def test_an_operator_that_is_killed_at_random_moments_ends_at_the_same_objects(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    def story(chance: random.Random | None) -> dict[Ref, Object]:
        """Create and update; with chance, be killed in the middle of both, again and again."""
        with Operator(cluster, log) as operator:
            for uri in ("s3://models/one", "s3://models/two"):
                kube.apply(isvc(uri=uri), namespace)
                for _ in range(5 if chance else 0):
                    assert chance is not None
                    time.sleep(chance.uniform(0.0, 2.5))
                    operator.kill()
                    operator.start()
                until(are_ready(kube, namespace), f"{uri} is Ready")
                until(lambda: len(kube.list(DEPLOYMENT, namespace)) == 1, "one Deployment is left")
            final = essence(kube, namespace)
            kube.run("--namespace", namespace, "delete", "isvc", "--all")
            until(lambda: not children(kube, namespace), "the children are gone")
        return final

    undisturbed = story(None)
    seed = int(time.time())
    assert story(random.Random(seed)) == undisturbed, f"seed {seed}"  # noqa: S311  no secret


@pytest.mark.timeout(600)
def test_an_operator_that_is_killed_after_each_write_of_a_rollout_ends_at_the_same_objects(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, record_property: Callable[[str, object], None]
) -> None:
    def service(uri: str) -> Object:
        body = isvc(uri=uri, minReplicas=2)
        body["spec"]["rollout"] = {"steps": [{"weight": 50}, {"pause": "1s"}]}
        body["spec"]["traffic"] = {"split": "Replicas"}
        return body

    def story(*, killed: bool) -> dict[Ref, Object]:
        with Operator(cluster, log) as operator:
            kube.apply(service("s3://models/one"), namespace)
            until(are_ready(kube, namespace), "the service is Ready")
            audit, kills = Audit(cluster), 0
            kube.apply(service("s3://models/two"), namespace)
            deadline = time.monotonic() + 400
            while not (are_ready(kube, namespace)() and len(kube.list(DEPLOYMENT, namespace)) == 1):
                assert time.monotonic() < deadline, operator.log()[-2000:]
                written = len(audit.writes(namespace))
                if killed and written > kills:
                    operator.kill()
                    kills = len(audit.writes(namespace))
                    record_property("killed_after_write", kills)
                    operator.start()
            final = essence(kube, namespace)
            kube.run("--namespace", namespace, "delete", "isvc", "--all")
            until(lambda: not children(kube, namespace), "the children are gone")
        return final

    assert story(killed=True) == story(killed=False)


def test_one_of_two_operators_acts_and_the_other_takes_over(
    cluster: Cluster,
    kube: Kube,
    namespace: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    lease = {"CONCH_LEASE_NAMESPACE": namespace}
    with (
        Operator(cluster, tmp_path / "a.log", POD_NAME="a", **lease) as first,
        Operator(cluster, tmp_path / "b.log", POD_NAME="b", **lease) as second,
    ):
        until(lambda: "leading" in first.log() + second.log(), "one leads")
        acting, other = (first, second) if "leading" in first.log() else (second, first)
        kube.apply(isvc(), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        assert "leading" not in other.log()
        acting.kill()
        began = time.monotonic()
        until(lambda: "leading" in other.log(), "the other leads")
        record_property("failover_after_SIGKILL_seconds", round(time.monotonic() - began, 1))
        acting.start()
        kube.apply(isvc(uri="s3://models/two"), namespace)
        until(are_ready(kube, namespace), "the change is served")
        assert acting.log().count("leading") == 1, "who was killed stands by now"
        other.stop()
        began = time.monotonic()
        until(lambda: acting.log().count("leading") == 2, "it leads again")
        record_property("failover_after_SIGTERM_seconds", round(time.monotonic() - began, 1))


def test_an_operator_that_ends_finishes_what_it_has_begun(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    """Each status comes with its events, even if SIGTERM meets the operator between the two."""
    services = [f"s{number}" for number in range(16)]
    audit = Audit(cluster)
    with Operator(cluster, log) as operator:
        kube.apply({"apiVersion": "v1", "kind": "List", "items": [isvc(name) for name in services]}, namespace)
        until_written(audit, namespace, "patch inferenceservices/status")
        operator.stop()
        operator.start()
        until(are_ready(kube, namespace, len(services)), "all services are Ready")
    events = [e for e in kube.list(EVENT, namespace) if e["reason"] == "RevisionCreated"]
    assert {event["regarding"]["name"] for event in events} == set(services)


def test_a_status_and_its_events_are_written_both_though_the_api_server_is_slow_when_the_operator_ends(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, tmp_path: Path
) -> None:
    """What has begun gets some seconds; a status that is written gets some more for its events."""
    services = [f"s{number}" for number in range(16)]
    audit = Audit(cluster)
    relay, kubeconfig = relayed(cluster, tmp_path)
    with contextlib.closing(relay), Operator(cluster, log, KUBECONFIG=str(kubeconfig)) as operator:
        kube.apply({"apiVersion": "v1", "kind": "List", "items": [isvc(name) for name in services]}, namespace)
        until_written(audit, namespace, "patch inferenceservices/status")
        relay.flows.clear()
        threading.Timer(END_SECONDS + 1.5, relay.flows.set).start()
        operator.stop()
        operator.start()
        until(are_ready(kube, namespace, len(services)), "all services are Ready")
    events = [e for e in kube.list(EVENT, namespace) if e["reason"] == "RevisionCreated"]
    assert {event["regarding"]["name"] for event in events} == set(services)


def until_written(audit: Audit, namespace: str, write: str) -> None:
    """Wait, without a pause in which much happens, until the API server has logged a write."""
    deadline = time.monotonic() + 60
    while not any(entry.startswith(write) for entry in audit.writes(namespace)):
        assert time.monotonic() < deadline, f"not written: {write}"
        time.sleep(0.001)


def test_a_leader_that_was_stopped_for_a_while_writes_nothing_when_it_goes_on(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    accounts = [f"--serviceaccount={namespace}:{name}" for name in ("a", "b")]
    kube.run("create", "clusterrolebinding", namespace, "--clusterrole=cluster-admin", *accounts)
    replicas = {}
    for name in ("a", "b"):
        file = tmp_path / f"{name}.kubeconfig"
        file.write_text(yaml.safe_dump({**kubeconfig_of(cluster, kube, namespace, name), "current-context": name}))
        settings = {"CONCH_LEASE_NAMESPACE": namespace, "POD_NAME": name, "KUBECONFIG": str(file)}
        replicas[name] = Operator(cluster, tmp_path / f"{name}.log", **settings)
    with replicas["a"] as a:
        until(lambda: "leading" in a.log(), "it leads")
        with replicas["b"] as b:
            kube.apply(isvc(), namespace)
            until(are_ready(kube, namespace), "the service is Ready")
            # A request that is being sent when the process is stopped goes on with it; the event follows the status.
            until(lambda: [e for e in kube.list(EVENT, namespace) if e["reason"] == "Served"], "nothing is under way")
            a.send_signal(signal.SIGSTOP)
            kube.apply(isvc(uri="s3://models/two"), namespace)
            until(lambda: "leading" in b.log(), "the other one leads")
            audit = Audit(cluster)
            a.send_signal(signal.SIGCONT)
            kube.apply(isvc(uri="s3://models/three"), namespace)
            assert a.wait(30) == 1
            last_words = "conch: (b holds the Lease|the Lease was not renewed for 8 s: .*); it starts again"
            assert re.search(last_words, a.log())
            until(are_ready(kube, namespace), "the last change is served")
            writers = {call["user"]["username"].rpartition(":")[2] for call in audit.calls() if is_a_write(call)}
            assert writers == {"b"}
    kube.run("delete", "clusterrolebinding", namespace)


def test_hands_that_change_children_are_undone(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    with Operator(cluster, log):
        kube.apply(isvc(minReplicas=2), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        name = kube.list(DEPLOYMENT, namespace)[0]["metadata"]["name"]
        kube.run("--namespace", namespace, "scale", f"deployment/{name}", "--replicas=5")
        until(lambda: kube.list(DEPLOYMENT, namespace)[0]["spec"]["replicas"] == 2, "the replicas are back")
        kube.run("--namespace", namespace, "delete", "service/magika")
        until(lambda: kube.list(SERVICE, namespace, names.LABEL_SERVICE)[1:], "the Service is back")
        kube.run("--namespace", namespace, "delete", f"deployment/{name}")
        until(lambda: kube.list(DEPLOYMENT, namespace), "the Deployment is back")
        until(are_ready(kube, namespace), "the service is Ready")


def ready(kube: Kube, namespace: str, name: str = "magika") -> dict[str, str]:
    """Return a service's Ready condition."""
    return condition(kube.get(INFERENCE_SERVICE, namespace, name) or {}, "Ready")


def events(kube: Kube, namespace: str, reason: str) -> list[Object]:
    """Return the events of a reason."""
    return [event for event in kube.list(EVENT, namespace) if event["reason"] == reason]


def test_a_foreign_service_of_the_same_name_is_never_taken(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "magika"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    kube.apply(theirs, namespace)
    before = kube.list(SERVICE, namespace)[0]
    with Operator(cluster, log):
        kube.apply(isvc(), namespace)
        until(
            lambda: ready(kube, namespace).get("reason") == "NameTaken",
            "the status names it",
        )
        message = ready(kube, namespace)["message"]
        assert "Service/magika exists and belongs to no controller" in message
        until(lambda: events(kube, namespace, "NameTaken"), "an event names it too")
        assert "Service/magika" in events(kube, namespace, "NameTaken")[0]["note"]
        until(lambda: kube.list(POD, namespace), "the pods are made all the same")
        after = next(s for s in kube.list(SERVICE, namespace) if s["metadata"]["name"] == "magika")
        assert after == before
        kube.run("--namespace", namespace, "delete", "service/magika")
        until(are_ready(kube, namespace), "the service is Ready")

        revision = kube.list(DEPLOYMENT, namespace)[0]["metadata"]["name"]
        kube.apply(isvc(revision), namespace)  # its Service would be the other one's revision Service
        until(
            lambda: "belongs to InferenceService/magika" in ready(kube, namespace, revision).get("message", ""),
            "the status names the other service",
        )
        assert ready(kube, namespace)["status"] == "True"


def test_a_pod_that_the_api_server_refuses_is_reported_in_its_words(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kube.apply(isvc(), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        kube.apply(isvc(pod={"tolerations": [{"operator": "Exists", "value": "1"}]}), namespace)
        until(
            lambda: ready(kube, namespace).get("reason") == "Invalid",
            "the status has the refusal",
        )
        body = kube.list(INFERENCE_SERVICE, namespace)[0]
        assert "tolerations" in condition(body, "Ready")["message"]
        assert condition(body, "Serving")["status"] == "True"
        kube.apply(isvc(pod={"tolerations": [{"operator": "Exists"}]}), namespace)
        until(are_ready(kube, namespace), "the mended service is Ready")


def test_pods_that_a_limit_range_refuses_are_reported_and_agent_resources_are_the_remedy(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    limits = {"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "small"}}
    kube.apply({**limits, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}, namespace)
    with Operator(cluster, log):
        kube.apply(isvc(), namespace)
        until(
            lambda: "maximum cpu usage per Container is 1" in ready(kube, namespace).get("message", ""),
            "the refusal is in the status",
            seen=lambda: ready(kube, namespace),
        )
        kube.apply(isvc(pod={"agentResources": {"limits": {"cpu": "500m", "memory": "256Mi"}}}), namespace)
        until(are_ready(kube, namespace), "the service with a smaller agent is Ready")


def test_a_warm_up_job_whose_pod_a_quota_refuses_is_reported_in_the_quotas_words(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        labels, annotations = {"team": "vision"}, {"example.com/cost-centre": "7"}
        resources = {"limits": {"cpu": "500m", "memory": "256Mi"}}
        pod = {"labels": labels, "annotations": annotations, "agentResources": resources}
        kube.apply(isvc(pod=pod), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        quota = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "narrow"}}
        kube.apply({**quota, "spec": {"hard": {"pods": "2"}}}, namespace)
        kube.apply(isvc(uri="s3://models/two", pod=pod, warmup={}), namespace)

        def rollout() -> dict[str, str]:
            [body] = kube.list(INFERENCE_SERVICE, namespace)
            return body["status"].get("rollout") or {}

        until(lambda: rollout().get("reason") == "JobPodsRefused", "the status has the refusal", seen=rollout)
        assert "exceeded quota: narrow" in rollout()["message"]
        [job] = kube.list(JOB, namespace)
        template = job["spec"]["template"]
        assert labels.items() <= template["metadata"]["labels"].items()
        assert template["metadata"]["annotations"] == annotations
        assert template["spec"]["containers"][0]["resources"] == resources
