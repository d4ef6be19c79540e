"""Two writers of the same children: another installation of Conch, and controllers that know nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import (
    AUTOSCALER,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    EVENT,
    INFERENCE_SERVICE,
    POD,
    Kind,
    Ref,
    ServiceKey,
)
from conch.observe import Store
from conch.observe.fields import value_at
from conch.observe.installation import Scope
from conch.write import Server
from conch_contract import names
from tests.api.operator import Audit, Operator, are_ready, condition, isvc
from tests.api.reconciler import build_reconciler
from tests.cluster import Cluster, clients
from tests.support.kube import Kube, Object
from tests.support.wait import until

CHART = Path(__file__).resolve().parents[2] / "charts" / "conch"
SCALED: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 3}


def installation(cluster: Cluster, folder: Path, namespace: str, name: str, **env: str) -> Operator:
    """An installation with a Lease of its own in this namespace."""
    lease = {"CONCH_LEASE_NAMESPACE": namespace, "CONCH_LEASE_NAME": name, "POD_NAME": f"{name}-0"}
    return Operator(cluster, folder / f"{name}.log", **lease, **env)


def service(kube: Kube, namespace: str) -> Object:
    return kube.get(INFERENCE_SERVICE, namespace, "magika") or {}


def owner(kube: Kube, namespace: str) -> str:
    return str(service(kube, namespace).get("status", {}).get("installation", ""))


def notes(kube: Kube, namespace: str, reason: str) -> list[str]:
    return [event["note"] for event in kube.list(EVENT, namespace) if event["reason"] == reason]


def pods(kube: Kube, namespace: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in kube.list(POD, namespace)}


def test_one_of_two_installations_writes_a_service_until_it_is_gone(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    first = installation(cluster, tmp_path, namespace, "first")
    second = installation(cluster, tmp_path, namespace, "second", CONCH_METRICS_API="none")
    with first, second:  # both lead; they want different autoscalers
        until(lambda: "leading" in first.log() and "leading" in second.log(), "both lead")
        kube.apply(isvc(**SCALED), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        until(lambda: notes(kube, namespace, "OtherInstallation"), "an event reports the two")
        acting, other = (first, second) if owner(kube, namespace).endswith("first") else (second, first)
        names = {first: f"{namespace}/first", second: f"{namespace}/second"}
        [note] = notes(kube, namespace, "OtherInstallation")
        assert note.startswith(f"Installation {names[other]} does not write this service: {names[acting]}, another")
        assert "watchNamespaces" in note
        time.sleep(10)  # the first sync of the HPA, and its result in the status
        before, audit = pods(kube, namespace), Audit(cluster)
        time.sleep(10)
        assert audit.writes(namespace) == []

        acting.kill()  # its Lease stays, and is renewed no more
        until(lambda: owner(kube, namespace) == names[other], "the other takes over")
        until(are_ready(kube, namespace), "the service is Ready")
        acting.start()
        until(lambda: len(notes(kube, namespace, "OtherInstallation")) == 2, "who is back leaves it alone")
        other.stop()
        kube.run("--namespace", namespace, "delete", "lease", names[other].partition("/")[2])
        until(lambda: owner(kube, namespace) == names[acting], "without a Lease it is given up at once")
        assert pods(kube, namespace) == before, "no pod ended for a change of the installation"
        kube.apply(isvc(uri="s3://models/two", **SCALED), namespace)
        until(are_ready(kube, namespace), "the change is served")


def test_installations_share_services_by_their_labels_and_a_label_hands_one_over(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """Each follows and writes its own services alone; a service that changes hands keeps its pods and its history."""

    def labelled(name: str, uri: str = "s3://models/magika", **labels: str) -> Object:
        return isvc(uri=uri, **SCALED) | {"metadata": {"name": name, "labels": labels}}

    def owners() -> dict[str, str]:
        found = kube.list(INFERENCE_SERVICE, namespace)
        return {each["metadata"]["name"]: each.get("status", {}).get("installation", "") for each in found}

    def label(value: str | None) -> None:
        kube.patch(INFERENCE_SERVICE, namespace, "magika", {"metadata": {"labels": {"shard": value}}})

    first = installation(cluster, tmp_path, namespace, "first", CONCH_LABEL_SELECTOR="!shard")
    second = installation(cluster, tmp_path, namespace, "second", CONCH_LABEL_SELECTOR="shard=b")
    with first, second:
        until(lambda: "leading" in first.log() and "leading" in second.log(), "both lead")
        for service in (labelled("magika"), labelled("other", shard="b"), labelled("unserved", shard="c")):
            kube.apply(service, namespace)
        until(are_ready(kube, namespace, 2), "those of the two are Ready")
        names = {"first": f"{namespace}/first", "second": f"{namespace}/second"}
        assert owners() == {"magika": names["first"], "other": names["second"], "unserved": ""}
        kube.apply(labelled("magika", "s3://models/two"), namespace)
        until(lambda: len(revisions(kube, namespace)) == 2, "the history has two revisions")
        until(are_ready(kube, namespace, 2), "the change is served")
        before, children = pods(kube, namespace), revisions(kube, namespace)

        audit = Audit(cluster)
        label("b")
        until(lambda: owners()["magika"] == names["second"], "the second one serves it")
        label(None)
        until(lambda: owners()["magika"] == names["first"], "the first one serves it again")
        label("b")
        until(lambda: owners()["magika"] == names["second"], "the second one serves it again")
        kube.patch(DISRUPTION_BUDGET, namespace, budget := f"{children[-1]}", {"spec": {"maxUnavailable": 0}})

        def repaired() -> Any:
            return (kube.get(DISRUPTION_BUDGET, namespace, budget) or {})["spec"]["maxUnavailable"] == "25%"

        until(repaired, "an edit of a child is undone")
        assert (pods(kube, namespace), revisions(kube, namespace)) == (before, children)
        changed = [write for write in audit.writes(namespace) if "status" not in write and "events" not in write]
        assert changed == [f"patch poddisruptionbudgets {budget}"]
        assert notes(kube, namespace, "OtherInstallation") == []
        kube.apply(labelled("magika", "s3://models/three", shard="b"), namespace)
        until(lambda: len(revisions(kube, namespace)) == 3, "the second one has the history")


def test_an_object_with_the_label_of_another_service_than_its_owner_does_not_keep_one_from_being_served(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """Nothing serves the service yet. A list by the name of the service lacks the object, whose content is needed."""
    second = installation(cluster, tmp_path, namespace, "second", CONCH_LABEL_SELECTOR="shard=b")
    with second:
        until(lambda: "leading" in second.log(), "it leads")
        kube.apply(isvc(**SCALED) | {"metadata": {"name": "magika", "labels": {"shard": "c"}}}, namespace)
        owned = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": "magika", "controller": True}
        meta = {
            "name": "odd",
            "labels": {names.LABEL_SERVICE: "other"},
            "ownerReferences": [owned | {"uid": service(kube, namespace)["metadata"]["uid"]}],
        }
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}, namespace)
        time.sleep(1)  # the operator has the object before it has its service
        kube.patch(INFERENCE_SERVICE, namespace, "magika", {"metadata": {"labels": {"shard": "b"}}})
        until(are_ready(kube, namespace), "the service is Ready")


async def test_a_reconcile_during_which_the_label_changes_leaves_the_status_to_the_next_installation(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    """A plan may take a while, and the other installation may have written the status meanwhile."""
    kube.apply(isvc() | {"metadata": {"name": "magika"}}, namespace)
    store, key = Store(Scope(selector="!shard").selects), ServiceKey(namespace, "magika")
    store.put(service(kube, namespace))

    def handle_written(body: Mapping[str, Any]) -> None:
        """Store a child; the first one finds the label changed, as the watch reports it."""
        store.put(body)
        if store.get(key, Ref(INFERENCE_SERVICE, "magika")) is not None:
            kube.patch(INFERENCE_SERVICE, namespace, "magika", {"metadata": {"labels": {"shard": "b"}}})
            store.discard(service(kube, namespace))

    async with await Server.connect(str(cluster.kubeconfig)) as server:
        reconcile = build_reconciler(server, store, installation="conch/first", handle_written=handle_written)
        await reconcile(key)
        for signal in (reconcile.agents, reconcile.collector, reconcile.capacities, reconcile.warnings):
            await signal.close()
    assert kube.list(CONTROLLER_REVISION, namespace), "the plan was begun"
    assert owner(kube, namespace) == "", "no status was written"


def revisions(kube: Kube, namespace: str) -> list[str]:
    """Return the names of magika's revisions, the oldest first."""
    found = [
        each for each in kube.list(CONTROLLER_REVISION, namespace) if each["metadata"]["name"].startswith("magika")
    ]
    return [each["metadata"]["name"] for each in sorted(found, key=lambda each: each["revision"])]


def test_operators_without_a_lease_do_not_write_without_end(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Neither marks what it serves, as an older version does not: nothing but the count of writes keeps them apart."""
    with (
        Operator(cluster, tmp_path / "a.log"),
        Operator(cluster, tmp_path / "b.log", CONCH_METRICS_API="none"),
    ):
        kube.apply(isvc(**SCALED), namespace)
        until(lambda: kube.list(AUTOSCALER, namespace), "the autoscaler is there")
        audit = Audit(cluster)
        time.sleep(15)
        writes = audit.writes(namespace)
        autoscalers = [write for write in writes if "horizontalpodautoscalers" in write]
        record_property("writes_in_15_seconds", len(writes))
        record_property("writes_of_the_autoscaler", len(autoscalers))
        assert 0 < len(autoscalers) <= 30, len(autoscalers)
        assert len(writes) <= 100, len(writes)


class Rival:
    """Another controller: it sets a field of an object again, as soon as it is otherwise."""

    def __init__(self, cluster: Cluster, namespace: str, ref: Ref, path: str, change: dict[str, Any]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._ref = ref
        self._path = path
        self._change = change
        self._ended = threading.Event()
        self.writes = 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let it write while the block runs."""
        thread = threading.Thread(target=lambda: asyncio.run(self._fight()))
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(10)

    async def _fight(self) -> None:
        wanted = value_at(self._change, self._path)
        async with await Server.connect(str(self._cluster.kubeconfig)) as server:
            server.client.user_agent = "gitops"
            while not self._ended.is_set():
                seen = await server.get(self._namespace, self._ref)
                if seen is not None and value_at(seen, self._path) != wanted:
                    await server.merge(self._namespace, self._ref, self._change, "gitops")
                    self.writes += 1
                await asyncio.sleep(0.02)


def only(kube: Kube, kind: Kind, namespace: str) -> str:
    [found] = [body["metadata"]["name"] for body in kube.list(kind, namespace)]
    return str(found)


def test_a_field_that_another_controller_sets_again_and_again_is_restored_less_and_less_often(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    def ready() -> dict[str, str]:
        return condition(service(kube, namespace), "Ready")

    with Operator(cluster, log):
        kube.apply(isvc(**SCALED), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        ref = Ref(AUTOSCALER, only(kube, AUTOSCALER, namespace))
        rival = Rival(cluster, namespace, ref, ".spec.maxReplicas", {"spec": {"maxReplicas": 7}})
        with rival.at_work():
            audit = Audit(cluster)
            until(lambda: ready().get("reason") == "FieldContested", "the status reports it", seen=ready)
            message = ready()["message"]
            assert f"{ref}: Field manager gitops changes .spec.maxReplicas each time Conch restores it" in message
            assert condition(service(kube, namespace), "Serving")["status"] == "True"
            until(lambda: notes(kube, namespace, "FieldContested"), "an event reports it")
            # Meanwhile: an edit of another child is undone at once, one of another field of the same child soon.
            name = only(kube, DISRUPTION_BUDGET, namespace)
            kube.patch(DISRUPTION_BUDGET, namespace, name, {"spec": {"maxUnavailable": 0}})

            def budget() -> Any:
                return (kube.get(DISRUPTION_BUDGET, namespace, name) or {})["spec"]["maxUnavailable"]

            until(lambda: budget() == "25%", "the budget is restored")
            kube.patch(AUTOSCALER, namespace, ref.name, {"spec": {"minReplicas": 2}})

            def floor() -> Any:
                return (kube.get(AUTOSCALER, namespace, ref.name) or {})["spec"]["minReplicas"]

            until(lambda: floor() == 1, "the floor is restored")
            time.sleep(10)
            writes = [w for w in audit.writes(namespace) if w == f"patch horizontalpodautoscalers {ref.name}"]
            assert 5 <= len(writes) <= 15, (len(writes), rival.writes)
            # A change of the service is still written.
            kube.apply(isvc(uri="s3://models/two", **SCALED), namespace)
            until(lambda: kube.list(DEPLOYMENT, namespace)[1:], "the new Deployment is there")
        until(lambda: ready().get("status") == "True", "the contest is over, and the service Ready", seen=ready)


def test_a_single_edit_of_each_child_is_restored_at_once(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kube.apply(isvc(**SCALED), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        name = only(kube, AUTOSCALER, namespace)
        for maximum in (5, 6, 7):

            def restored() -> bool:
                return bool((kube.get(AUTOSCALER, namespace, name) or {})["spec"]["maxReplicas"] == 3)

            kube.patch(AUTOSCALER, namespace, name, {"spec": {"maxReplicas": maximum}})
            until(restored, "the maximum is restored")
        assert condition(service(kube, namespace), "Ready")["reason"] != "FieldContested"


def install(cluster: Cluster, namespace: str, release: str, *values: str) -> str:
    """Install the chart with a dry run of Helm; return its error, empty where it has none."""
    arguments = ["--dry-run=server", "--set=autoscaling.metricsApi=none", *(f"--set={value}" for value in values)]
    done = subprocess.run(
        [clients.program("helm"), "install", release, CHART, f"--namespace={namespace}", *arguments],
        env={"KUBECONFIG": str(cluster.kubeconfig), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


@pytest.fixture
def installed(kube: Kube, namespace: str) -> Iterator[str]:
    """Create what another release reads of a release of the chart; yield its namespace."""
    notes = {"meta.helm.sh/release-name": "conch", "meta.helm.sh/release-namespace": namespace}
    labels = {"app.kubernetes.io/name": "conch"}
    meta = {"name": f"{namespace}-operator", "labels": labels, "annotations": notes}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": []}
    kube.apply(role, namespace)
    yield namespace
    kube.run("delete", "clusterrole", f"{namespace}-operator", "--ignore-not-found")


def test_helm_refuses_a_second_installation_for_the_same_namespaces(
    cluster: Cluster, kube: Kube, installed: str
) -> None:
    for values in ((), ("crds.install=false",), ("crds.install=false", "watchNamespaces={default}")):
        complaint = install(cluster, installed, "second", *values)
        assert f"the Helm release conch in the namespace {installed} serves all namespaces" in complaint, complaint
        assert f"helm upgrade conch --namespace {installed}" in complaint
    kube.run("delete", "clusterrole", f"{installed}-operator")
    assert install(cluster, installed, "second", "crds.install=false") == ""


def test_helm_installs_beside_a_release_with_another_label_selector(
    cluster: Cluster, kube: Kube, installed: str
) -> None:
    role = ("annotate", "clusterrole", f"{installed}-operator")
    kube.run(*role, "conch.dev/watch-label-selector=!shard")
    values = ("crds.install=false", "watchLabelSelector=shard=b")
    assert install(cluster, installed, "second", *values) == ""
    for same in ("crds.install=false", "crds.install=false,watchLabelSelector=!shard"):
        complaint = install(cluster, installed, "second", same)
        assert "serves all namespaces with the label selector !shard" in complaint, complaint
        assert "or watchLabelSelector in both" in complaint


def test_helm_refuses_a_name_that_another_release_uses_and_no_other(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    """Each serves namespaces of its own, so both are right; ClusterRoles are the cluster's."""
    labels = {"app.kubernetes.io/name": "conch"}
    notes = {"meta.helm.sh/release-name": "conch-b", "meta.helm.sh/release-namespace": "elsewhere"}
    meta = {"name": "conch-b-view", "labels": labels, "annotations": notes}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": []}
    values = ("crds.install=false", "watchNamespaces={default}")
    kube.apply(role, namespace)
    try:
        assert install(cluster, namespace, "conch", *values) == ""
        complaint = install(cluster, namespace, "conch-b", *values)
        assert "ClusterRole conch-b-view belongs to the Helm release conch-b in the namespace elsewhere" in complaint
    finally:
        kube.run("delete", "clusterrole", "conch-b-view")


def test_helm_hands_over_the_crd_of_a_release_that_is_gone(cluster: Cluster, kube: Kube, namespace: str) -> None:
    mark = {"meta.helm.sh/release-name": "gone", "meta.helm.sh/release-namespace": "elsewhere"}
    pairs = [f"{name}={value}" for name, value in mark.items()]
    crd = ("annotate", "crd", "inferenceservices.conch.dev", "--overwrite")
    kube.run(*crd, *pairs)
    try:
        complaint = install(cluster, namespace, "anew")
        assert "belongs to the Helm release gone in the namespace elsewhere" in complaint, complaint
        command = complaint[complaint.index("kubectl annotate") :].partition(". If")[0]
        kube.run(*command.split()[1:])
        found = json.loads(kube.run("get", "crd", "inferenceservices.conch.dev", "--output=json"))
        assert found["metadata"]["annotations"]["meta.helm.sh/release-name"] == "anew"
        assert "belongs to the Helm release" not in install(cluster, namespace, "anew")
    finally:
        kube.run(*crd, *(f"{name}-" for name in mark))
