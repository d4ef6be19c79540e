"""The operator and the Gateways of a real API server: what it sees of them, what wakes it. The test is the gateway."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api.kinds import GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, INFERENCE_SERVICE, Kind
from conch.decide.requeue import MIN_CHECK_SECONDS
from conch_contract import names
from tests.api.operator import Operator, are_ready, condition, isvc
from tests.cluster import Cluster, binaries
from tests.support.kube import Kube, Object
from tests.support.wait import until


@pytest.fixture
def gateway_class(kube: Kube, namespace: str) -> Iterator[Object]:
    """A class of a name of its own: it is of the whole cluster. Not created yet, and removed in the end."""
    spec = {"controllerName": "conch.test/example"}
    yield {
        "apiVersion": GATEWAY_CLASS.api_version,
        "kind": GATEWAY_CLASS.name,
        "metadata": {"name": namespace},
        "spec": spec,
    }
    kube.delete(GATEWAY_CLASS, "", namespace)


def gateway(class_name: str) -> Object:
    return {
        "apiVersion": GATEWAY.api_version,
        "kind": GATEWAY.name,
        "metadata": {"name": "public"},
        "spec": {"gatewayClassName": class_name, "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
    }


def routed(**traffic: object) -> Object:
    """A service behind the Gateway `public` of its namespace."""
    body = isvc()
    body["spec"]["traffic"] = {"gateways": [{"name": "public"}], "hostnames": ["magika.example.com"], **traffic}
    return body


def answer(kube: Kube, kind: Kind, namespace: str, name: str, status: Object) -> None:
    """Write a status, as a gateway's controller does."""
    resource = f"{kind.plural}.{kind.group}"
    where = f"--namespace={namespace or 'default'}"
    patch = f"--patch={json.dumps({'status': status})}"
    kube.run("patch", resource, name, where, "--subresource=status", "--type=merge", patch)


def accept(kube: Kube, namespace: str, name: str = "magika") -> None:
    """Take a route up."""
    route = until(lambda: kube.get(HTTP_ROUTE, namespace, name), "the route is there")
    conditions = [
        {
            "type": type_,
            "status": "True",
            "reason": type_,
            "message": "",
            "observedGeneration": route["metadata"]["generation"],
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
        for type_ in ("Accepted", "ResolvedRefs")
    ]
    parents = [
        {"parentRef": parent, "controllerName": "conch.test/example", "conditions": conditions}
        for parent in route["spec"]["parentRefs"]
    ]
    answer(kube, HTTP_ROUTE, namespace, name, {"parents": parents})


def foreign_route(path: str) -> Object:
    """A route that no service controls, under the hostname of the service. Of two of one second its name is first."""
    return {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": HTTP_ROUTE.name,
        "metadata": {"name": "another"},
        "spec": {
            "parentRefs": [{"name": "public"}],
            "hostnames": ["magika.example.com"],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}],
        },
    }


def supports(kube: Kube, name: str, *features: str) -> None:
    answer(kube, GATEWAY_CLASS, "", name, {"supportedFeatures": [{"name": feature} for feature in features]})


def wait_for_reason(kube: Kube, namespace: str, reason: str) -> None:
    """Wait until the condition TrafficProgrammed has that reason."""

    def traffic() -> dict[str, str]:
        return condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "TrafficProgrammed")

    until(lambda: traffic().get("reason") == reason, f"the status has the reason {reason}", seen=traffic)


def reconciles(operator: Operator) -> float:
    """Return how often the operator has reconciled so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("conch_reconciles_total"))


def is_idle(operator: Operator) -> bool:
    """Whether no reconcile runs for longer than the longest wait between two reconciles of a service that is up."""
    before = reconciles(operator)
    time.sleep(MIN_CHECK_SECONDS + 1)
    return reconciles(operator) == before


def test_the_status_follows_gateways_and_classes_as_they_come_and_go(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, gateway_class: Object
) -> None:
    with Operator(cluster, log) as operator:
        kube.apply(routed(timeout="30s"), namespace)
        wait_for_reason(kube, namespace, "GatewayMissing")
        kube.apply(gateway(namespace), namespace)
        wait_for_reason(kube, namespace, "GatewayClassMissing")
        kube.apply(gateway_class)
        wait_for_reason(kube, namespace, "GatewayNotResponding")
        accept(kube, namespace)
        until(are_ready(kube, namespace), "the service is Ready")

        supports(kube, namespace, "Gateway", "HTTPRoute")
        wait_for_reason(kube, namespace, "TimeoutNotSupported")
        ready = condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "TimeoutNotSupported")
        supports(kube, namespace, "Gateway", "HTTPRoute", "HTTPRouteRequestTimeout")
        until(are_ready(kube, namespace), "the service is Ready")

        until(lambda: is_idle(operator), "the operator polls no pod any more")
        before = reconciles(operator)
        for routes in range(5):
            listener = {"name": "http", "attachedRoutes": routes, "supportedKinds": [], "conditions": []}
            answer(kube, GATEWAY, namespace, "public", {"listeners": [listener]})
        time.sleep(2)
        assert reconciles(operator) == before, "unused fields of a Gateway cause no reconcile"

        kube.delete(GATEWAY, namespace, "public")
        wait_for_reason(kube, namespace, "GatewayMissing")
        service = kube.get(INFERENCE_SERVICE, namespace, "magika") or {}
        assert condition(service, "Serving")["status"] == "True"
        assert (kube.get(HTTP_ROUTE, namespace, "magika") or {})["status"]["parents"], "the old word stands"
        kube.apply(gateway(namespace), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        kube.delete(GATEWAY_CLASS, "", namespace)
        wait_for_reason(kube, namespace, "GatewayClassMissing")


def test_a_restarted_operator_knows_at_its_first_look_what_gateways_there_are(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, gateway_class: Object
) -> None:
    kube.apply(gateway_class)
    kube.apply(gateway(namespace), namespace)
    with Operator(cluster, log) as operator:
        kube.apply(routed(), namespace)
        accept(kube, namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        version = (kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["metadata"]["resourceVersion"]
        operator.stop()
        operator.start()
        until(lambda: operator.log().count("watching") == 2, "it watches again")
        until(lambda: reconciles(operator) > 0, "it has looked")
        time.sleep(3)
        service = kube.get(INFERENCE_SERVICE, namespace, "magika") or {}
        assert service["metadata"]["resourceVersion"] == version, "it never took the Gateway for missing"


def test_an_operator_of_some_namespaces_requires_nothing_of_gateways(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log, CONCH_NAMESPACES=namespace):
        kube.apply(routed(), namespace)
        wait_for_reason(kube, namespace, "GatewayNotResponding")
        accept(kube, namespace)
        until(are_ready(kube, namespace), "the service is Ready")


def test_a_foreign_route_that_takes_requests_is_named_until_it_takes_none(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, gateway_class: Object
) -> None:
    kube.apply(gateway_class)
    kube.apply(gateway(namespace), namespace)
    kube.apply(foreign_route("/v2/models"), namespace)
    accept(kube, namespace, "another")
    with Operator(cluster, log) as operator:
        kube.apply(routed(), namespace)
        accept(kube, namespace)
        wait_for_reason(kube, namespace, "HostnameTaken")
        ready = condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "HostnameTaken")
        assert ready["message"].startswith(
            f"HTTPRoute {namespace}/another gets requests of this service for the hostname magika.example.com at"
            f" Gateway {namespace}/public: those with the path prefix /v2/models, because its route"
        )

        kube.apply(foreign_route("/"), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        kube.apply(foreign_route("/v2/models/magika/infer"), namespace)
        wait_for_reason(kube, namespace, "HostnameTaken")

        until(lambda: is_idle(operator), "the operator polls no pod any more")
        before = reconciles(operator)
        kube.patch(HTTP_ROUTE, namespace, "another", {"metadata": {"labels": {"team": "a"}}})
        time.sleep(2)
        assert reconciles(operator) == before, "unused fields of a foreign route cause no reconcile"
        kube.delete(HTTP_ROUTE, namespace, "another")
        until(are_ready(kube, namespace), "the service is Ready")


def test_a_route_that_loses_the_label_of_its_service_has_it_again(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    with Operator(cluster, log):
        kube.apply(routed(), namespace)
        route = until(lambda: kube.get(HTTP_ROUTE, namespace, "magika"), "the route is there")
        kube.patch(HTTP_ROUTE, namespace, "magika", {"metadata": {"labels": {names.LABEL_SERVICE: None}}})

        def labels() -> dict[str, str]:
            found: dict[str, str] = (kube.get(HTTP_ROUTE, namespace, "magika") or {})["metadata"]["labels"]
            return found

        until(lambda: names.LABEL_SERVICE in labels(), "the route has its label again", seen=labels)
        assert (kube.get(HTTP_ROUTE, namespace, "magika") or {})["metadata"]["uid"] == route["metadata"]["uid"]


@pytest.fixture
def no_gateway_api(kube: Kube) -> Iterator[list[str]]:
    """Take the Gateway API away, and bring it back in the end. Return kubectl's arguments that bring it."""
    files = [f"--filename={path}" for path in binaries.manifests("gateway-api") if "vap" not in path.name]
    kube.run("delete", "--ignore-not-found", *files)
    yield files
    kube.run("apply", "--server-side", "--field-manager=local-cluster", *files)


def test_a_cluster_without_the_gateway_api_is_served_and_its_coming_is_noticed(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, no_gateway_api: list[str]
) -> None:
    with Operator(cluster, log):
        kube.apply([isvc("without"), routed()], namespace)

        def ready() -> dict[str, str]:
            return condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "Ready")

        until(are_ready(kube, namespace), "the service without a route is Ready")
        until(lambda: ready().get("reason") == "GatewayApiMissing", "the status has what is missing", seen=ready)
        kube.run("apply", "--server-side", "--field-manager=local-cluster", *no_gateway_api)
        wait_for_reason(kube, namespace, "GatewayMissing")
        kube.apply(gateway("none"), namespace)
        wait_for_reason(kube, namespace, "GatewayClassMissing")
