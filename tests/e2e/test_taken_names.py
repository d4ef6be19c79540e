"""Objects of other owners have the names of all children of a new service. They stay, and it waits for each name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from conch.api.child_kinds import CHILDREN, child_kind
from conch.api.kinds import (
    AUTOSCALER,
    BACKEND_TRAFFIC_POLICY,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    SERVICE,
    Kind,
    Ref,
)
from tests.e2e.conftest import manifest
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.service import Service
from tests.support.wait import until

# What a user of another tool may have, without pods.
OTHERS: Final[dict[Kind, Object]] = {
    CONTROLLER_REVISION: {"revision": 1, "data": {}},
    CONFIG_MAP: {"data": {"key": "other"}},
    SERVICE: {"spec": {"ports": [{"port": 80}]}},
    DEPLOYMENT: {
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "other"}},
            "template": {
                "metadata": {"labels": {"app": "other"}},
                "spec": {"containers": [{"name": "main", "image": "other"}]},
            },
        }
    },
    AUTOSCALER: {
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}, "maxReplicas": 1}
    },
    DISRUPTION_BUDGET: {"spec": {"minAvailable": 1}},
    HTTP_ROUTE: {"spec": {"hostnames": ["other.example.com"]}},
    BACKEND_TRAFFIC_POLICY: {
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "other"}]}
    },
}


def build_service(gateway: Gateway) -> dict[str, Any]:
    """Return a service with children of all kinds but Jobs, which a first revision has none of."""
    service = manifest("named", maxReplicas=2, autoscaling={"queueToComputeRatio": 1})
    service["spec"]["traffic"] = {
        "gateways": [gateway.parent],
        "hostnames": ["named.example.com"],
        "consistentHash": {"header": "x-user"},
    }
    return service


def test_a_service_waits_for_the_names_of_other_owners_objects(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    body = build_service(gateway)
    kube.apply(body, namespace)
    service = Service(kube, namespace, "named")
    stable = service.until_ready()["stable"]
    refs = {Ref(kind, each["metadata"]["name"]) for kind in CHILDREN for each in service.children(kind)}
    assert {ref.kind for ref in refs} == set(OTHERS)
    service.delete()
    until(lambda: not any(kube.get(ref.kind, namespace, ref.name) for ref in refs), "nothing of it is left")

    for ref in refs:
        head = {"apiVersion": ref.kind.api_version, "kind": ref.kind.name}
        kube.apply({**head, "metadata": {"name": ref.name}, **OTHERS[ref.kind]}, namespace)
    before = {ref: _identify(kube, namespace, ref) for ref in refs}
    kube.apply(body, namespace)
    named = []
    while refs:
        ref = until(partial(_find_named, service, frozenset(refs)), f"the status names one of {refs}")
        assert {each: _identify(kube, namespace, each) for each in refs} == {each: before[each] for each in refs}
        named.append(str(ref))
        step = child_kind(ref.kind).step
        gone = {each for each in refs if child_kind(each.kind).step == step}
        for each in gone:  # what the user finds beside it
            kube.delete(each.kind, namespace, each.name)
        refs -= gone
    figure(f"named one after the other: {', '.join(named)}")
    assert service.until_ready()["stable"] == stable


def _find_named(service: Service, refs: frozenset[Ref]) -> Ref | None:
    """Return the object that the status names as taken, if it is one of these."""
    condition = service.condition("Ready")
    message = condition.get("message", "") if condition.get("reason") == "NameTaken" else ""
    return next((ref for ref in refs if f"{ref} exists and belongs to no controller" in message), None)


def _identify(kube: Kube, namespace: str, ref: Ref) -> tuple[str, int, str]:
    """Return what changes when an object is written, but for its status."""
    metadata = (kube.get(ref.kind, namespace, ref.name) or {})["metadata"]
    managers = sorted(entry["manager"] for entry in metadata["managedFields"] if "subresource" not in entry)
    return metadata["uid"], metadata.get("generation", 0), " ".join(managers)
