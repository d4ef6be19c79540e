"""A tenant attacks the operator by all that `edit` in a namespace allows; others are served and scaled meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import yaml

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, LEASE, POD, SERVICE
from conch_contract import names
from tests.e2e.conftest import MakeNamespace, manifest
from tests.e2e.test_canary import SUCCESS
from tests.e2e.test_queue_scaling import BY_QUEUE, RESOURCES, SLOW, SOON, load
from tests.support.attacks import DEEP, create_deep, owned_by, put_large, put_small, refused, replace_pods
from tests.support.doubling import LIGHT, SHORT, behind, double, times
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.place import CHART, OPERATOR, SYSTEM, Place
from tests.support.service import Service, restarts
from tests.support.traffic import Traffic
from tests.support.wait import until

LARGE = 100  # ConfigMaps of 940 kB with the label of a service: 94 MB
OWNED = 20  # such ConfigMaps of which the service is the controller
SMALL = 2000
SERVICES = 100
PODS = 4  # of the attacker's canary, all hostile
SECONDS = 60.0  # in which the others are scaled
OFTEN = 3  # requests to each hostile pod, and for each path, before the others are scaled

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.timeout(900, func_only=True)]


@dataclass(frozen=True)
class Tenants:
    """The attacker's service, and the services of two others."""

    attacker: Service
    asked: Service  # it has requests all the time, and a number of pods that its user changes
    busy: Service  # it is scaled by its queue


@pytest.fixture
def tenants(kube: Kube, make_namespace: MakeNamespace, gateway: Gateway) -> Iterator[Tenants]:
    """Three namespaces with a service in each."""
    with (
        make_namespace("e2e-attacker") as first,
        make_namespace("e2e-asked") as second,
        make_namespace("e2e-busy") as third,
    ):
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "pods"},
            "spec": {"hard": {"pods": "12"}},
        }
        kube.apply(quota, first)
        steps = [{"weight": 90}, {"analysis": "10m"}]
        judged = {"steps": steps, "analysis": [SUCCESS], "progressDeadline": "1h"}
        behind(kube, first, gateway, {"minReplicas": PODS, **SHORT}, rollout=judged)
        kube.apply(manifest("double", **double(2), **SHORT), second)
        slow = {**SLOW, "resources": RESOURCES, "maxReplicas": 3, "autoscaling": {**BY_QUEUE, "behavior": SOON}}
        kube.apply(manifest("double", **slow), third)
        found = Tenants(*(Service(kube, place, "double") for place in (first, second, third)))
        for service in (found.attacker, found.asked, found.busy):
            service.until_ready(120)
        found.busy.until_condition("Autoscaling", "True", 90)
        yield found


class Attack:
    """All that a user with `edit` in a namespace can do to the operator, one after the other; what was done stays."""

    def __init__(self, kube: Kube, service: Service) -> None:
        self._kube, self._service, self._namespace = kube, service, service.namespace

    def all(self) -> tuple[Callable[[], None], ...]:
        """Return each attack."""
        return (
            self.hostile_answers_of_pods,
            self.deep_specs,
            self.deep_objects,
            self.large_objects,
            self.small_objects,
            self.many_services,
        )

    def hostile_answers_of_pods(self) -> None:
        """Have all pods of a revision answer with hostile texts, and its canary be judged by what they answer."""
        image = yaml.safe_load((CHART / "values.yaml").read_text())["servingImage"]
        self._service.patch({"predictor": double(3)})
        rollout = until(self._analysis, "the canary is judged", 120, seen=lambda: self._service.status)
        pods = replace_pods(self._service, rollout["revision"], f"{image['repository']}:{image['tag']}")
        for path, asked in ((names.STATUS_PATH, pods[::2]), ("/metrics", pods[1::2])):
            for pod in asked:
                until(partial(self._was_asked, pod, path), f"{pod} was asked for {path}", SECONDS)

    def _analysis(self) -> Object | None:
        """Return the status of the rollout when the canary, with all its pods, is judged."""
        rollout: Object = self._service.status.get("rollout") or {}
        is_judged = rollout.get("reason") == "Analysis"
        return rollout if is_judged and len(self._service.ready_pods(rollout["revision"])) == PODS else None

    def _was_asked(self, pod: str, path: str) -> bool:
        log = self._kube.run("logs", pod, f"--namespace={self._namespace}")
        return log.count(f"GET {path} ") >= OFTEN

    def deep_specs(self) -> None:
        """Create services whose fields are nested without end."""
        for field in ("affinity", "tolerations", "volumes", "env"):
            body = json.dumps(manifest(f"deep-{field}", pod={field: DEEP}))
            deep = body.replace(json.dumps(DEEP), '{"a":' * 2000 + "1" + "}" * 2000)
            stored = not refused(self._kube, self._namespace, deep)
            if stored:
                assert "{'a':" not in str(self._kube.get(INFERENCE_SERVICE, self._namespace, f"deep-{field}"))

    def deep_objects(self) -> None:
        """Create objects whose managed fields are as deep as the API server stores them."""
        for kind in (INFERENCE_SERVICE, DEPLOYMENT, SERVICE):
            create_deep(self._kube, kind, self._namespace, f"deep-{kind.plural}")

    def large_objects(self) -> None:
        """Create large objects with the label of a service, and some that name it as their controller."""
        put_large(self._kube, self._namespace, self._service.name, LARGE)
        owner = owned_by(self._service.body)
        put_large(self._kube, self._namespace, self._service.name, OWNED, ownerReferences=[owner])

    def small_objects(self) -> None:
        """Create many small objects that name a service as their controller."""
        put_small(self._kube, self._namespace, self._service.body, SMALL)

    def many_services(self) -> None:
        """Create many services; the namespace's quota refuses most of their pods."""
        for number in range(SERVICES):
            self._kube.create(INFERENCE_SERVICE, manifest(f"one-of-many-{number}"), self._namespace)


def test_an_attack_of_one_tenant_keeps_no_other_from_being_served_and_scaled(
    place: Place, kube: Kube, tenants: Tenants, figure: Callable[[str], None]
) -> None:
    before = operators(kube)
    with (
        place.reach(tenants.asked.namespace, "double", names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, times(2, 3), LIGHT) as traffic,
    ):
        figure(f"undisturbed: {scaled(tenants.asked, 2)}")
        for number, attack in enumerate(Attack(kube, tenants.attacker).all()):
            began = time.monotonic()
            attack()
            mounted = time.monotonic() - began
            figure(f"{attack.__name__} ({mounted:.0f} s): {scaled(tenants.asked, 1 + number % 2)}")
        loaded = load(place, tenants.busy, "20", "20s")
        until(lambda: len(tenants.busy.ready_pods()) >= 2, "a queue gets more pods", SECONDS)
        run = loaded()
        tenants.asked.patch({"predictor": double(3)})
        tenants.asked.settle(SECONDS)
        restart(kube)
        figure(f"after a restart of the operator amid all of it: {scaled(tenants.asked, 3)}")
    figure(str(traffic))
    assert not traffic.tallies["grpc"].failures, traffic
    assert not traffic.tallies["fresh"].failures, traffic
    assert run["failed"] == 0, run["failures"]
    after = operators(kube)
    assert all(not any(restarts(pod).values()) for pod in after.pods), "an operator ended"
    assert after.transitions <= before.transitions + 1, "only the restart that was asked for changed the leader"
    for pod in after.pods:
        figure(f"memory of {pod['metadata']['name']}: {memory_mib(kube, pod):.0f} MiB")
        assert memory_mib(kube, pod) < 400


@dataclass(frozen=True)
class Operators:
    """The operator's pods, and how often its leader has changed."""

    pods: list[dict[str, Any]]
    transitions: int


def operators(kube: Kube) -> Operators:
    """Look at the operator."""
    pods = kube.list(POD, SYSTEM, "app.kubernetes.io/instance=conch,app.kubernetes.io/name=conch")
    lease = kube.get(LEASE, SYSTEM, OPERATOR) or {}
    there = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return Operators(there, int(lease["spec"].get("leaseTransitions", 0)))


def memory_mib(kube: Kube, pod: dict[str, Any]) -> float:
    """Return the resident memory of an operator, as it tells Prometheus."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:9090/proxy/metrics"
    lines = kube.run("get", f"--raw={path}").splitlines()
    return next(float(line.split()[1]) / 2**20 for line in lines if line.startswith("process_resident_memory_bytes "))


def restart(kube: Kube) -> None:
    """Have all operators start anew, and read all that there is."""
    kube.run("rollout", "restart", f"deployment/{OPERATOR}", f"--namespace={SYSTEM}")
    kube.run("rollout", "status", f"deployment/{OPERATOR}", f"--namespace={SYSTEM}", "--timeout=120s")


def scaled(service: Service, pods: int) -> str:
    """Have a service be scaled; return how long it took, in words."""
    began = time.monotonic()
    service.patch({"predictor": {"minReplicas": pods}})
    until(lambda: len(service.ready_pods()) == pods, f"the other tenant has {pods} pods", SECONDS)
    service.until_ready(SECONDS)
    return f"{pods} pods after {time.monotonic() - began:.1f} s"
