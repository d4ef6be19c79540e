"""Items that others add to lists of children: what server-side apply leaves to them is left alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, SERVICE
from conch.observe.compare import KEYED
from tests.api.operator import Audit, Operator, are_ready, isvc
from tests.cluster import Cluster
from tests.support.kube import Kube
from tests.support.wait import until

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"


def test_a_foreign_item_costs_no_write_and_a_foreign_value_is_undone(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    def ports() -> list[dict[str, Any]]:
        return list((kube.get(SERVICE, namespace, "magika") or {})["spec"]["ports"])

    def names() -> list[str]:
        return [port["name"] for port in ports()]

    with Operator(cluster, log):
        kube.apply(isvc(pod={"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        revision = kube.list(DEPLOYMENT, namespace)[0]["metadata"]["name"]
        ours = ports()

        foreign = {"name": "admin", "port": 9000, "protocol": "TCP"}
        kube.patch(SERVICE, namespace, "magika", {"spec": {"ports": [foreign, *ours]}})
        kube.run("--namespace", namespace, "set", "env", f"deployment/{revision}", "FOREIGN=1", "--containers=triton")
        audit = Audit(cluster)
        # Whatever brings the service to the queue: a change of its annotations, again and again.
        for number in range(10):
            kube.patch(INFERENCE_SERVICE, namespace, "magika", {"metadata": {"annotations": {"touched": str(number)}}})
            time.sleep(0.5)
        until(are_ready(kube, namespace), "the service is Ready")
        # The foreign variable brings a new pod, of which the status and an event may speak.
        assert [w for w in audit.writes(namespace) if "status" not in w and not w.startswith("create events")] == []
        assert names() == ["admin", *(port["name"] for port in ours)]

        # What is ours comes back: a value, and the order.
        changed = [{**ours[0], "appProtocol": "mine"}, *ours[1:]]
        kube.patch(SERVICE, namespace, "magika", {"spec": {"ports": changed}})
        until(lambda: ports() == ours, "the value is back")
        kube.patch(SERVICE, namespace, "magika", {"spec": {"ports": ours[::-1]}})
        until(lambda: ports() == ours, "the order is back")


def test_lists_are_compared_as_the_api_server_merges_them(kube: Kube) -> None:
    """Every list of the golden manifests, by the schema that the API server publishes."""
    schemas = {
        "Service": ("/openapi/v3/api/v1", "io.k8s.api.core.v1.Service"),
        "ConfigMap": ("/openapi/v3/api/v1", "io.k8s.api.core.v1.ConfigMap"),
        "Deployment": ("/openapi/v3/apis/apps/v1", "io.k8s.api.apps.v1.Deployment"),
        "Job": ("/openapi/v3/apis/batch/v1", "io.k8s.api.batch.v1.Job"),
        "PodDisruptionBudget": ("/openapi/v3/apis/policy/v1", "io.k8s.api.policy.v1.PodDisruptionBudget"),
        "HorizontalPodAutoscaler": (
            "/openapi/v3/apis/autoscaling/v2",
            "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        ),
        "HTTPRoute": ("/openapi/v3/apis/gateway.networking.k8s.io/v1", "io.k8s.networking.gateway.v1.HTTPRoute"),
    }
    documents = {path: kube.read(path) or {} for path, _ in schemas.values()}
    seen: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def walk(value: Any, schema: dict[str, Any], known: dict[str, Any], path: tuple[str, ...], *, merges: bool) -> None:
        """Note the lists of a value. An apply merges nothing below a list that it replaces."""
        while reference := schema.get("$ref") or next((one.get("$ref") for one in schema.get("allOf", ())), None):
            schema = known[reference.rpartition("/")[2]]
        if isinstance(value, dict):
            fields = schema.get("properties", {})
            for field, item in value.items():
                below = fields.get(field) or schema.get("additionalProperties") or {}
                walk(item, below, known, (*path, field), merges=merges)
        if isinstance(value, list):
            merges = merges and schema.get("x-kubernetes-list-type") == "map"
            seen[path] = tuple(schema["x-kubernetes-list-map-keys"]) if merges else None
            for item in value:
                walk(item, schema.get("items") or {}, known, path, merges=merges)

    manifests = [
        manifest
        for file in sorted(GOLDEN.rglob("*.yaml"))
        for manifest in yaml.safe_load_all(file.read_text())
        if manifest
    ]
    for manifest in manifests:
        if manifest.get("kind") in schemas:
            path, name = schemas[manifest["kind"]]
            known = documents[path]["components"]["schemas"]
            walk(manifest, known[name], known, (), merges=True)
    assert len(seen) > 10
    assert {path: KEYED.get(path) for path in seen} == seen
