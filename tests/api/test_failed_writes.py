"""Writes that the API server rejects, and children that another writer made or edited: what users read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    SERVICE,
    Kind,
    Ref,
    ServiceKey,
)
from conch.desire import PodDefaults
from conch.observe import Store
from conch.plan import Apply
from conch.write import Server, Writer
from conch_contract import names
from tests.api.operator import Operator, are_ready, children, condition, isvc
from tests.api.reconciler import build_reconciler
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until

SCALED = {"minReplicas": 1, "maxReplicas": 3}
NEW: dict[Kind, dict[str, Any]] = {
    CONTROLLER_REVISION: {"revision": 1, "data": {}},
    CONFIG_MAP: {"data": {"a": "b"}},
    SERVICE: {"spec": {"ports": [{"port": 80}]}},
    DISRUPTION_BUDGET: {"spec": {"minAvailable": 1}},
    HTTP_ROUTE: {"spec": {"hostnames": ["magika.example"]}},
}


def metric(**target: Any) -> dict[str, Any]:
    """A predictor that scales by CPU, with this target."""
    resource = {"name": "cpu", "target": {"type": "Utilization", **target}}
    return {**SCALED, "autoscaling": {"metrics": [{"type": "Resource", "resource": resource}]}}


def behavior(**down: Any) -> dict[str, Any]:
    """A predictor that scales down so."""
    return {**SCALED, "autoscaling": {"behavior": {"scaleDown": down}}}


def pod(**fields: Any) -> dict[str, Any]:
    """A predictor with these fields of the pod."""
    return {"pod": fields}


def nodes(**term: Any) -> dict[str, Any]:
    """A predictor whose pods need nodes of this term."""
    need = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return pod(affinity={"nodeAffinity": need})


EXPRESSION = {"key": "zone", "operator": "In", "values": ["a"]}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
LABELS = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"}
# Fields of Kubernetes' own types that have the right type and a value that Kubernetes refuses, which no schema knows;
# and what the condition names: the path, and the value or the key.
MISTAKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "env-name": (pod(env=[{"name": "A=B", "value": "1"}]), ("env[0].name", '"A=B"')),
    "env-source": (pod(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "meta.name"}}}]), ("fieldPath",)),
    "env-sources": (
        pod(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        ("env[0].valueFrom",),
    ),
    "affinity-key": (nodes(matchExpressions=[{**EXPRESSION, "key": "a b"}]), ("key", '"a b"')),
    "affinity-values": (nodes(matchExpressions=[{**EXPRESSION, "values": []}]), ("values",)),
    "affinity-weight": (
        pod(
            affinity={
                "podAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": LABELS}]
                }
            }
        ),
        ("weight", "0"),
    ),
    "toleration-both": (pod(tolerations=[{"key": "a", "operator": "Exists", "value": "1"}]), ("tolerations", '"1"')),
    "toleration-seconds": (
        pod(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        ("tolerations[0].effect",),
    ),
    "volume-sources": (pod(volumes=[{"name": "a", "emptyDir": {}, "configMap": {"name": "b"}}]), ("volumes",)),
    "volume-of-none": (pod(volumeMounts=[{"name": "a", "mountPath": "/a"}]), ("volumeMounts", '"a"')),
    "volume-mode": (
        pod(volumes=[{"name": "a", "secret": {"secretName": "b", "defaultMode": 1024}}]),
        ("defaultMode", "1024"),
    ),
    "spread-skew": (pod(topologySpreadConstraints=[{**SPREAD, "maxSkew": 0}]), ("maxSkew", "0")),
    "utilization-none": (metric(), ("target",)),
    "utilization-zero": (metric(averageUtilization=0), ("averageUtilization", "0")),
    "utilization-both": (metric(averageUtilization=80, averageValue="1"), ("averageValue",)),
    "behavior-range": (behavior(stabilizationWindowSeconds=-1), ("stabilizationWindowSeconds", "-1")),
    "behavior-policy": (behavior(policies=[{"type": "Some", "value": 4, "periodSeconds": 60}]), ("type", '"Some"')),
    "behavior-period": (behavior(policies=[{"type": "Pods", "value": 4, "periodSeconds": 0}]), ("periodSeconds", "0")),
    "behavior-select": (behavior(selectPolicy="Mean"), ("selectPolicy", '"Mean"')),
}


def ready(kube: Kube, namespace: str, name: str = "magika") -> dict[str, str]:
    """Return a service's Ready condition."""
    return condition(kube.get(INFERENCE_SERVICE, namespace, name) or {}, "Ready")


def test_a_value_that_kubernetes_refuses_is_a_condition_of_a_new_service_and_of_one_that_serves(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    stored: dict[str, dict[str, Any]] = {}
    with Operator(cluster, log) as operator:
        kube.apply([isvc(f"old-{name}", minReplicas=1) for name in MISTAKEN], namespace)
        until(are_ready(kube, namespace, len(MISTAKEN)), "all are Ready")
        for name, (predictor, _) in MISTAKEN.items():
            for age in ("old", "new"):
                kube.apply(isvc(f"{age}-{name}", **predictor), namespace)
                stored[f"{age}-{name}"] = predictor
        for service in stored:
            words = MISTAKEN[service.partition("-")[2]][1]

            def is_reported(service: str = service, words: tuple[str, ...] = words) -> bool:
                body = kube.get(INFERENCE_SERVICE, namespace, service) or {}
                found = condition(body, "Ready")
                return (
                    found.get("status") == "False"
                    and all(word in found["message"] for word in words)
                    and body["status"]["observedGeneration"] == body["metadata"]["generation"]
                )

            def seen(service: str = service) -> Any:
                return (kube.get(INFERENCE_SERVICE, namespace, service) or {}).get("status", {}).get("conditions")

            until(is_reported, f"{service} is not Ready, and has the reason", seen=seen)
            assert ready(kube, namespace, service)["reason"] == "Invalid"
        scaled = {each["metadata"]["name"] for each in kube.list(AUTOSCALER, namespace)}
        assert scaled <= {each["metadata"]["name"] for each in kube.list(DEPLOYMENT, namespace)}, "it would wait"
        assert "Traceback" not in operator.log()


def foreign_service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }


def test_objects_that_depend_on_a_refused_object_wait(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    def service(uri: str) -> Object:
        body = isvc(uri=uri, minReplicas=1, maxReplicas=3)
        body["spec"]["variants"] = [{"name": "beta", "predictor": {"model": {"storageUri": "s3://models/beta"}}}]
        return body

    def deployments() -> list[str]:
        found = kube.list(DEPLOYMENT, namespace, names.LABEL_SERVICE)
        return [each["metadata"]["name"] for each in found if not each["metadata"]["name"].startswith("magika-beta")]

    kube.apply(foreign_service("magika-beta"), namespace)
    with Operator(cluster, log):
        kube.apply(service("s3://models/one"), namespace)
        until(lambda: ready(kube, namespace).get("reason") == "NameTaken", "the status names it")
        assert "Service/magika-beta" in ready(kube, namespace)["message"]
        assert ready(kube, namespace)["message"].startswith("Variant beta: ")
        until(lambda: len(kube.list(AUTOSCALER, namespace)) == 2, "predictor and variant are scaled")
        [first] = deployments()
        until(
            lambda: (
                condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "RolloutComplete")["status"] == "True"
            ),
            "the predictor is up",
        )
        kube.apply(service("s3://models/two"), namespace)
        until(lambda: deployments() not in ([first], []) and len(deployments()) == 1, "the old Deployment goes")
        until(lambda: ready(kube, namespace)["reason"] == "NameTaken", "the name is still taken")
        # What depends on it waits: a revision whose Deployment is not written has no autoscaler.
        kube.run("--namespace", namespace, "delete", "service/magika-beta")
        until(are_ready(kube, namespace), "the service is Ready")


def test_an_object_that_an_admission_policy_refuses_for_a_while_is_reported_and_then_written(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    """A webhook without a server: the API server answers 500, and accepts the object when the webhook is gone."""
    name = f"{namespace}.conch.test"
    rule = {"apiGroups": ["policy"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["poddisruptionbudgets"]}
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": name,
                "rules": [rule],
                "clientConfig": {"url": "https://127.0.0.1:1/refuse"},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 1,
            }
        ],
    }
    kube.apply([webhook], namespace)
    try:
        with Operator(cluster, log):
            kube.apply(isvc(), namespace)
            until(
                lambda: "failed calling webhook" in ready(kube, namespace).get("message", ""),
                "the status reports it",
            )
            until(lambda: ready(kube, namespace)["status"] == "False", "it has lasted")
            assert "PodDisruptionBudget/magika-" in ready(kube, namespace)["message"]
            assert kube.list(SERVICE, namespace, names.LABEL_SERVICE), "the rest is written"
            kube.run("delete", "validatingwebhookconfiguration", name)
            until(are_ready(kube, namespace), "the service is Ready")
            assert kube.list(DISRUPTION_BUDGET, namespace)
    finally:
        kube.run("delete", "validatingwebhookconfiguration", name, "--ignore-not-found")


def test_children_that_their_service_left_behind_are_adopted(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        before = _served_twice(kube, namespace)
        kube.run("--namespace", namespace, "delete", "inferenceservice/magika", "--cascade=orphan")
        until(lambda: not _owners(kube, namespace, before), "they have no owner")
        _adopts(kube, namespace, before)
        after = children(kube, namespace)
        assert _uids(after) == _uids(before), "none was made anew, so no pod went"


def test_children_of_a_restored_backup_are_adopted(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    with Operator(cluster, log):
        before = _served_twice(kube, namespace)
        kube.run("--namespace", namespace, "delete", "inferenceservice/magika")
        until(lambda: not children(kube, namespace), "all are gone")
        _restore(kube, namespace, before)
        restored = {ref: kube.get(ref.kind, namespace, ref.name) or {} for ref in before}
        _adopts(kube, namespace, before)
        assert _uids(children(kube, namespace)) == _uids(restored)


def _served_twice(kube: Kube, namespace: str) -> dict[Ref, Object]:
    """Serve a model, then another one. Return the children: those of one revision, and two records."""
    for uri in ("s3://models/one", "s3://models/two"):
        kube.apply(isvc(uri=uri, minReplicas=1, maxReplicas=3), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        until(lambda: len(kube.list(DEPLOYMENT, namespace)) == 1, "one Deployment is left")
    return children(kube, namespace)


def _adopts(kube: Kube, namespace: str, before: dict[Ref, Object]) -> None:
    """Make the service again, and see that all is its own: records of the past too, and in the end all go with it."""
    kube.apply(isvc(uri="s3://models/two", minReplicas=1, maxReplicas=3), namespace)
    until(are_ready(kube, namespace), "the service is Ready")
    uid = (kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["metadata"]["uid"]
    until(lambda: _owners(kube, namespace, before) == [uid] * len(before), "all are the new service's")
    kube.run("--namespace", namespace, "annotate", "inferenceservice/magika", "touched=1")


def _owners(kube: Kube, namespace: str, found: dict[Ref, Object]) -> list[str]:
    bodies = (kube.get(ref.kind, namespace, ref.name) or {"metadata": {}} for ref in found)
    return [owner["uid"] for body in bodies for owner in body["metadata"].get("ownerReferences") or ()]


def _uids(found: dict[Ref, Object]) -> dict[Ref, str]:
    return {ref: body["metadata"]["uid"] for ref, body in found.items()}


def _restore(kube: Kube, namespace: str, found: dict[Ref, Object]) -> None:
    """Make children again as a backup has them: other uids, no owner."""
    bodies = []
    for ref, body in found.items():
        meta = {key: body["metadata"][key] for key in ("name", "labels", "annotations")}
        rest = {key: value for key, value in body.items() if key not in {"metadata", "status"}}
        rest.get("spec", {}).pop("clusterIP", None)
        rest.get("spec", {}).pop("clusterIPs", None)
        head = {"apiVersion": ref.kind.api_version, "kind": ref.kind.name, "metadata": meta}
        bodies.append({**rest, **head})
    kube.apply(bodies, namespace)


def test_a_deployment_without_pods_gets_its_floor_back(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    with Operator(cluster, log):
        kube.apply(isvc(minReplicas=2, maxReplicas=4), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        name = kube.list(DEPLOYMENT, namespace)[0]["metadata"]["name"]

        def replicas() -> int:
            return int(kube.list(DEPLOYMENT, namespace)[0]["spec"]["replicas"])

        kube.run("--namespace", namespace, "scale", f"deployment/{name}", "--replicas=0")
        until(lambda: replicas() == 2, "the floor is back")
        # The autoscaler owns the number again.
        kube.run("--namespace", namespace, "scale", f"deployment/{name}", "--replicas=3")
        until(are_ready(kube, namespace), "the service is Ready")
        assert replicas() == 3


def test_a_route_that_a_user_edited_is_restored(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    body = isvc()
    body["spec"]["traffic"] = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"]}

    def rules() -> list[Any]:
        route = kube.get(HTTP_ROUTE, namespace, "magika") or {}
        return list(route.get("spec", {}).get("rules", ()))

    with Operator(cluster, log) as operator:
        kube.apply(body, namespace)
        ours = until(rules, "the route is there")
        none = json.loads(json.dumps(ours))
        for rule in none:
            for backend in rule["backendRefs"]:
                backend["weight"] = 0
        filtered = json.loads(json.dumps(ours))
        header = {"name": "x-from", "value": "another"}
        filtered[0]["filters"] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [header]}}]
        for edit in (none, filtered, [*ours, {"matches": [{"path": {"type": "Exact", "value": "/"}}]}], ours[:1]):
            kube.patch(HTTP_ROUTE, namespace, "magika", {"spec": {"rules": edit}})
            until(lambda: rules() == ours, f"the rules are back after {edit}", seen=rules)
        accepted = {"metadata": {"annotations": {"conch.dev/accepted": "1 yesterday", "conch.dev/applied-hash": "x"}}}
        kube.patch(HTTP_ROUTE, namespace, "magika", accepted)
        revision = kube.list(CONTROLLER_REVISION, namespace, names.LABEL_SERVICE)[0]["metadata"]["name"]
        generation = {"metadata": {"annotations": {"conch.dev/generation": "first"}}}
        kube.patch(CONTROLLER_REVISION, namespace, revision, generation)

        def restored() -> bool:
            found = kube.get(CONTROLLER_REVISION, namespace, revision) or {}
            return str(found["metadata"]["annotations"]["conch.dev/generation"]).isdigit()

        until(restored, "the annotation is a number again")
        kube.run("--namespace", namespace, "label", f"deployment/{revision}", f"{names.LABEL_SERVICE}-")
        until(lambda: kube.list(DEPLOYMENT, namespace, names.LABEL_SERVICE), "the label is back")
        kube.run("--namespace", namespace, "label", "service/magika", f"{names.LABEL_SERVICE}=other", "--overwrite")
        until(lambda: kube.list(SERVICE, namespace, f"{names.LABEL_SERVICE}=magika")[1:], "the label is back")
        assert "reconcile failed" not in operator.log()


def remembered(part: object, key: ServiceKey, path: str = "") -> list[str]:
    """Return where something is kept of a service, but for the store."""
    found = []
    for name, value in vars(part).items():
        if isinstance(value, dict) and key in value:
            found.append(f"{path}{name}")
        elif type(value).__module__.startswith("conch.") and hasattr(value, "__dict__"):
            found += [] if isinstance(value, Store) else remembered(value, key, f"{path}{name}.")
    return found


async def test_a_reconcile_that_raises_is_a_condition_after_the_third_time(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    """An error of Conch's own: it is given no images, so it cannot render a revision."""
    kube.apply(isvc(), namespace)
    store, key = Store(), ServiceKey(namespace, "magika")
    store.put(kube.get(INFERENCE_SERVICE, namespace, "magika") or {})

    def found() -> dict[str, Any]:
        return dict((kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["status"])

    async with await Server.connect(str(cluster.kubeconfig)) as server:
        broken: Any = object()
        reconcile = build_reconciler(server, store, defaults=broken)
        for generation in (-1, -1, 1, 1):
            with pytest.raises(AttributeError):
                await reconcile(key)
            assert found()["observedGeneration"] == generation
        conditions = {one["type"]: one for one in found()["conditions"]}
        assert conditions.keys() == {"Ready", "Stalled"}
        assert conditions["Ready"]["status"] == "False"
        assert conditions["Ready"]["reason"] == "ReconcileFailed"
        assert "AttributeError" in conditions["Ready"]["message"]
        await reconcile.agents.close()
        # Another version of the operator repairs it, and the condition is removed.
        mended = replace(reconcile, defaults=PodDefaults("conch/serving:1"))
        await mended(key)
        assert "ReconcileFailed" not in str(found())
        # Of a service that is gone, nothing is remembered.
        store.discard(kube.get(INFERENCE_SERVICE, namespace, "magika") or {})
        await mended(key)
        assert remembered(mended, key) == []


@pytest.mark.parametrize("kind", NEW, ids=lambda kind: kind.name)
async def test_an_object_is_created_unless_its_name_is_taken(
    kind: Kind, cluster: Cluster, kube: Kube, namespace: str
) -> None:
    """Between two looks of the operator, another writer may have made one: an apply would overwrite it."""
    kube.apply([isvc(name) for name in ("magika", "other")], namespace)
    bodies = kube.list(INFERENCE_SERVICE, namespace)
    uids = {body["metadata"]["name"]: body["metadata"]["uid"] for body in bodies}

    def build(name: str, service: str, writer: str) -> Object:
        owner = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.name, "controller": True}
        owners = [{**owner, "name": service, "uid": uids[service]}]
        meta = {"name": name, "namespace": namespace, "labels": {"writer": writer}, "ownerReferences": owners}
        return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, **NEW[kind]}

    def read_writer(name: str) -> str:
        found = kube.get(kind, namespace, name)
        assert found is not None
        return str(found["metadata"]["labels"]["writer"])

    kube.apply([build("known", "magika", "before"), build("taken", "other", "before")], namespace)
    step = tuple(Apply(Ref(kind, name), build(name, "magika", "now"), new=True) for name in ("free", "known", "taken"))
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        writer = Writer(server, lambda _: None)
        [rejected] = await writer.execute(ServiceKey(namespace, "magika"), uids["magika"], [step])
    assert (rejected.ref, rejected.reason) == (Ref(kind, "taken"), "NameTaken")
    assert [read_writer(name) for name in ("free", "known", "taken")] == ["now", "now", "before"]


async def test_a_child_of_a_service_of_before_is_waited_for(cluster: Cluster, kube: Kube, namespace: str) -> None:
    """The garbage collector is about to take it, and a finalizer of another controller may hold it for long."""
    kube.apply([isvc()], namespace)
    [service] = kube.list(INFERENCE_SERVICE, namespace)
    ref = Ref(CONFIG_MAP, "held")

    def build(uid: str, **meta: Any) -> Object:
        kind = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.name, "controller": True}
        owners = [{**kind, "name": "magika", "uid": uid}]
        meta |= {"name": ref.name, "namespace": namespace, "ownerReferences": owners}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}

    kube.apply([build("00000000-0000-0000-0000-000000000001", finalizers=["example.com/hold"])], namespace)
    step = (Apply(ref, build(service["metadata"]["uid"]), new=True),)
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        writer, key = Writer(server, lambda _: None), ServiceKey(namespace, "magika")
        [rejected] = await writer.execute(key, service["metadata"]["uid"], [step])
        assert not rejected.final
        assert rejected.message.startswith("Conch cannot write ConfigMap/held, and tries again")
        await server.delete(namespace, ref)
        await server.merge(namespace, ref, {"metadata": {"finalizers": None}}, "test")
        assert await writer.execute(key, service["metadata"]["uid"], [step]) == []
