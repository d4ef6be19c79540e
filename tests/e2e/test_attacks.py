"""A tenant attacks the operator by all that `edit` in a namespace allows; others are served and scaled meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import yaml

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, LEASE, POD, SERVICE
from conch_contract import names
from tests.e2e.conftest import MakeNamespace, manifest
from tests.e2e.test_canary import SUCCESS
from tests.e2e.test_queue_scaling import BY_QUEUE, RESOURCES, SLOW, SOON, load
from tests.support import conch
from tests.support.attacks import (
    DEEP,
    create_deep,
    get_refusal,
    held_by,
    put_large,
    put_small,
    release_all,
    replace_pods,
)
from tests.support.doubling import LIGHT, SHORT, apply_behind_gateway, build_predictor, build_request
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.place import CHART, OPERATOR, SYSTEM, Place
from tests.support.service import Service, restarts
from tests.support.traffic import Traffic
from tests.support.wait import until

LARGE = 100  # ConfigMaps of 940 kB with the label of a service: 94 MB
OWNED = 40  # such ConfigMaps with a service as their controller: 38 MB, of which the operator keeps 17 MiB
SMALL = 2000
SERVICES = 100
PODS = 4  # of the attacker's canary, all hostile
OFTEN = 3  # requests to each hostile pod
MEMORY_MIB = 400.0  # of the 512 that the chart allows

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.timeout(900, func_only=True)]


@dataclass(frozen=True)
class Tenants:
    """The attacker's services, and those of two others.

    Attributes:
        attacker: behind a gateway; its rollout has an analysis.
        owner: of the attacker too, alone in a namespace: the controller of large objects.
        served: it has requests all the time, and its user changes the number of its pods.
        autoscaled: its queue scales it.
    """

    attacker: Service
    owner: Service
    served: Service
    autoscaled: Service


@pytest.fixture
def tenants(kube: Kube, make_namespace: MakeNamespace, gateway: Gateway) -> Iterator[Tenants]:
    """Four namespaces with a service in each."""
    with (
        make_namespace("e2e-attacker") as attacker,
        make_namespace("e2e-attacker-too") as owner,
        make_namespace("e2e-served") as served,
        make_namespace("e2e-autoscaled") as autoscaled,
    ):
        head = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}}
        kube.apply({**head, "spec": {"hard": {"pods": "12"}}}, attacker)
        steps = [{"weight": 90}, {"analysis": "30m"}]
        rollout = {"steps": steps, "analysis": [SUCCESS], "progressDeadline": "1h"}
        apply_behind_gateway(kube, attacker, gateway, {"minReplicas": PODS, **SHORT}, rollout=rollout)
        for namespace in (owner, served):
            kube.apply(manifest("double", **build_predictor(2), **SHORT), namespace)
        slow = {**SLOW, "resources": RESOURCES, "maxReplicas": 3, "autoscaling": {**BY_QUEUE, "behavior": SOON}}
        kube.apply(manifest("double", **slow), autoscaled)
        found = Tenants(*(Service(kube, each, "double") for each in (attacker, owner, served, autoscaled)))
        for service in (found.attacker, found.owner, found.served, found.autoscaled):
            service.until_ready()
        found.autoscaled.until_condition("Autoscaling", "True")
        try:
            yield found
        finally:
            for namespace in (attacker, owner):
                release_all(kube, namespace)


class Attack:
    """What a user with `edit` in two namespaces can do to the operator. All of it lasts until the namespaces go."""

    def __init__(self, kube: Kube, attacker: Service, owner: Service) -> None:
        self._kube, self._attacker, self._owner = kube, attacker, owner
        self._namespace = attacker.namespace
        self._pods: list[str] = []

    def parts(self) -> tuple[Callable[[], None], ...]:
        """Return the parts of the attack."""
        return (
            self.replace_pods_of_a_canary,
            self.create_deep_specs,
            self.create_deep_objects,
            self.create_large_objects,
            self.create_small_objects,
            self.create_many_services,
        )

    def replace_pods_of_a_canary(self) -> None:
        """Have all pods of a canary answer with hostile texts, both the agent's reports and Triton's metrics."""
        image = yaml.safe_load((CHART / "values.yaml").read_text())["servingImage"]
        self._attacker.patch({"predictor": build_predictor(3)})
        rollout = until(self._get_analysis, "the analysis has begun", seen=lambda: self._attacker.status)
        self._pods = replace_pods(self._attacker, rollout["revision"], f"{image['repository']}:{image['tag']}")
        self.until_answered()

    def until_answered(self) -> None:
        """Wait until each hostile pod has answered more requests: for reports those that are not ready."""
        paths = {pod: "/metrics" if number % 2 else names.STATUS_PATH for number, pod in enumerate(self._pods)}
        before = {pod: self._count(pod, path) for pod, path in paths.items()}

        def has_answered(pod: str) -> bool:
            return self._count(pod, paths[pod]) >= before[pod] + OFTEN

        for pod in self._pods:
            until(partial(has_answered, pod), f"{pod} has answered requests for {paths[pod]}")

    def create_deep_specs(self) -> None:
        """Create services whose fields are nested without end: each is refused, or the field is dropped."""
        for field in ("affinity", "tolerations", "volumes", "env"):
            body = json.dumps(manifest(f"deep-{field}", pod={field: DEEP}))
            deep = body.replace(json.dumps(DEEP), '{"a":' * 2000 + "1" + "}" * 2000)
            if refusal := get_refusal(self._kube, self._namespace, deep):
                assert "Invalid value" in refusal or "Too many" in refusal, refusal[:1000]
                continue
            stored = self._kube.get(INFERENCE_SERVICE, self._namespace, f"deep-{field}")
            assert stored is not None
            assert "{'a':" not in str(stored)

    def create_deep_objects(self) -> None:
        """Create objects whose managed fields are as deep as the API server stores them."""
        for kind in (INFERENCE_SERVICE, DEPLOYMENT, SERVICE):
            create_deep(self._kube, kind, self._namespace, f"deep-{kind.plural}")

    def create_large_objects(self) -> None:
        """Create large objects with the label of a service, and more than is kept of those of another one's own."""
        put_large(self._kube, self._namespace, self._attacker.name, LARGE)
        put_large(self._kube, self._owner.namespace, self._owner.name, OWNED, **held_by(self._owner.body))
        self._owner.until_condition("Ready", "False", "ObjectsTooLarge")

    def create_small_objects(self) -> None:
        """Create many small objects with a service as their controller."""
        put_small(self._kube, self._namespace, self._attacker.name, SMALL, **held_by(self._attacker.body))

    def create_many_services(self) -> None:
        """Create many services; the namespace's quota refuses most of their pods."""
        for number in range(SERVICES):
            self._kube.create(INFERENCE_SERVICE, manifest(f"one-of-many-{number}"), self._namespace)

    def _get_analysis(self) -> Object | None:
        """Return the status of the rollout when all pods of the canary are there and the analysis has begun."""
        rollout: Object = self._attacker.status.get("rollout") or {}
        has_begun = rollout.get("reason") == "Analysis"
        return rollout if has_begun and len(self._attacker.ready_pods(rollout["revision"])) == PODS else None

    def _count(self, pod: str, path: str) -> int:
        return self._kube.run("logs", pod, f"--namespace={self._namespace}").count(f"GET {path} ")


def test_an_attack_of_one_tenant_keeps_no_other_from_being_served_and_scaled(
    place: Place, kube: Kube, tenants: Tenants, figure: Callable[[str], None]
) -> None:
    attack = Attack(kube, tenants.attacker, tenants.owner)
    before = get_transitions(kube)
    with (
        place.reach(tenants.served.namespace, "double", names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3), LIGHT) as traffic,
    ):
        figure(f"before the attack: {scale(tenants.served, 2)}")
        for number, part in enumerate(attack.parts()):
            began = time.monotonic()
            part()
            seconds = time.monotonic() - began
            figure(f"{part.__name__} ({seconds:.0f} s): {scale(tenants.served, 1 + number % 2)}")
        get_figures = load(place, tenants.autoscaled, "20", "20s")
        until(lambda: len(tenants.autoscaled.ready_pods()) >= 2, "the autoscaler adds pods")
        run = get_figures()
        tenants.served.patch({"predictor": build_predictor(3)})
        tenants.served.settle()
        attack.until_answered()
        check_operators(kube, figure)
        assert get_transitions(kube) == before, "the leader has changed"
        restart(kube)
        figure(f"after a restart of the operator: {scale(tenants.served, 3)}")
        attack.until_answered()
    figure(str(traffic))
    for kind in ("grpc", "fresh"):
        assert traffic.tallies[kind].sent > 1000, traffic
        assert not traffic.tallies[kind].failures, traffic
    assert conch.count_unserved(run) == 0, (run["failures"], run["lateReasons"])
    check_operators(kube, figure)


def check_operators(kube: Kube, figure: Callable[[str], None]) -> None:
    """Check that no container of an operator has ended, and that all are well within their memory."""
    pods = kube.list(POD, SYSTEM, "app.kubernetes.io/instance=conch,app.kubernetes.io/name=conch")
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert len(pods) == 2
    for pod in pods:
        assert not any(restarts(pod).values()), f"{pod['metadata']['name']} has ended"
        memory = get_memory_mib(kube, pod)
        figure(f"memory of {pod['metadata']['name']}: {memory:.0f} MiB")
        assert memory < MEMORY_MIB


def get_transitions(kube: Kube) -> int:
    """Return how often the operator's leader has changed."""
    lease = kube.get(LEASE, SYSTEM, OPERATOR) or {}
    return int(lease["spec"].get("leaseTransitions", 0))


def get_memory_mib(kube: Kube, pod: Object) -> float:
    """Return the resident memory of an operator, from its metrics."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:9090/proxy/metrics"
    lines = kube.run("get", f"--raw={path}").splitlines()
    return next(float(line.split()[1]) / 2**20 for line in lines if line.startswith("process_resident_memory_bytes "))


def restart(kube: Kube) -> None:
    """Restart all operators: they list all that there is."""
    kube.run("rollout", "restart", f"deployment/{OPERATOR}", f"--namespace={SYSTEM}")
    kube.run("rollout", "status", f"deployment/{OPERATOR}", f"--namespace={SYSTEM}", "--timeout=120s")


def scale(service: Service, pods: int) -> str:
    """Change the number of a service's pods; return how long it took, in words."""
    began = time.monotonic()
    service.patch({"predictor": {"minReplicas": pods}})
    until(lambda: len(service.ready_pods()) == pods, f"{service.namespace} has {pods} pods")
    service.until_ready()
    return f"{pods} pods after {time.monotonic() - began:.1f} s"
