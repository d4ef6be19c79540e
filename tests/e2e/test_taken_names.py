"""Objects of other owners have the names of all children of a new service. They stay, and it waits for each name.

ScaledObjects are in test_scale_to_zero.py, which has KEDA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from conch.api.child_kinds import CHILDREN, child_kind
from conch.api.kinds import (
    AUTOSCALER,
    BACKEND_TRAFFIC_POLICY,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    JOB,
    SERVICE,
    Kind,
    Ref,
)
from tests.support.doubling import apply_behind_gateway, count_factors
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.service import Service
from tests.support.wait import until

CONTAINER: Final = {"name": "main", "image": "other"}
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
                "spec": {"containers": [CONTAINER]},
            },
        }
    },
    AUTOSCALER: {
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}, "maxReplicas": 1}
    },
    DISRUPTION_BUDGET: {"spec": {"minAvailable": 1}},
    JOB: {"spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}}},
    HTTP_ROUTE: {"spec": {"hostnames": ["other.example.com"]}},
    BACKEND_TRAFFIC_POLICY: {
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "other"}]}
    },
}
# Nothing but their owner writes them; the others have a status, which a controller writes.
WITHOUT_CONTROLLER: Final = frozenset({CONTROLLER_REVISION, CONFIG_MAP, SERVICE})
USER: Final = {"x-user": "one"}


def apply_service(kube: Kube, namespace: str, gateway: Gateway) -> Service:
    """Make a service with children of all kinds. The first revision of a variant has a warm-up Job."""
    scaled = {"maxReplicas": 2, "autoscaling": {"queueToComputeRatio": 1}}
    warm = {"name": "beta", "weight": 20, "predictor": {"warmup": {}}}
    traffic = {
        "gateways": [gateway.parent],
        "hostnames": [f"{namespace}.example.com"],
        "consistentHash": {"header": next(iter(USER))},
    }
    return apply_behind_gateway(kube, namespace, gateway, scaled, variants=[warm], traffic=traffic)


def test_a_service_waits_for_the_names_of_other_owners_objects(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    service = apply_service(kube, namespace, gateway)
    stable = service.until_ready()["stable"]
    refs = {Ref(kind, each["metadata"]["name"]) for kind in CHILDREN for each in service.children(kind)}
    assert {ref.kind for ref in refs} == set(OTHERS) == set(CHILDREN)
    service.delete()
    until(lambda: not any(kube.get(ref.kind, namespace, ref.name) for ref in refs), "nothing of it is left")

    for ref in refs:
        head = {"apiVersion": ref.kind.api_version, "kind": ref.kind.name}
        kube.apply({**head, "metadata": {"name": ref.name}, **OTHERS[ref.kind]}, namespace)
    before = {ref: _identify(kube, namespace, ref) for ref in refs}
    apply_service(kube, namespace, gateway)
    named = []
    while refs:
        ref, message = until(partial(_find_named, service, frozenset(refs)), f"the status names one of {refs}")
        assert {each: _identify(kube, namespace, each) for each in refs} == {each: before[each] for each in refs}
        named.append(message)
        gone = {each for each in refs if _find_turn(each) == _find_turn(ref)}
        for each in gone:  # what the user finds beside it
            kube.delete(each.kind, namespace, each.name)
        refs -= gone
    figure("\n".join(named))
    assert named[0].endswith("Other taken names: 4."), "the ConfigMap, the PodDisruptionBudget, and both Services"
    assert service.until_ready()["stable"] == stable
    assert count_factors(gateway, service, 1, USER) == {2: 1}, "a request is answered"


def _find_turn(ref: Ref) -> tuple[int, bool]:
    """Return when an object is written: in the step of its kind; a warm-up Job later, when the pods are ready."""
    return child_kind(ref.kind).step, ref.kind == JOB


def _find_named(service: Service, refs: frozenset[Ref]) -> tuple[Ref, str] | None:
    """Return the object that the status names as taken, if it is one of these, and the message."""
    condition = service.condition("Ready")
    message = condition.get("message", "") if condition.get("reason") == "NameTaken" else ""
    return next(((ref, message) for ref in refs if f"{ref} exists and belongs to no controller" in message), None)


def _identify(kube: Kube, namespace: str, ref: Ref) -> tuple[str, int, str, str]:
    """Return what changes when an object is written, but for what its controller writes."""
    metadata = (kube.get(ref.kind, namespace, ref.name) or {})["metadata"]
    managers = sorted(entry["manager"] for entry in metadata["managedFields"] if "subresource" not in entry)
    version = metadata["resourceVersion"] if ref.kind in WITHOUT_CONTROLLER else ""
    return metadata["uid"], metadata.get("generation", 0), " ".join(managers), version
