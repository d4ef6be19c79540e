"""KEDA drives the pods: the last one goes without requests, and comes back with the first request.

Conch is installed with KEDA for this file, and as before afterwards: a cluster has one Conch.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import yaml

from conch.api.kinds import AUTOSCALER, POD, SCALED_OBJECT, Ref
from conch.api.metrics import TritonMetric
from conch.api.names import FIELD_MANAGER
from conch.triton.promql import build_promql
from conch_contract import names
from tests.support import examples, filetypes, keda, prometheus
from tests.support.audit import Account, granted, used
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.place import OPERATOR, SYSTEM, Place
from tests.support.service import Service
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until

MONITORING = "monitoring"  # where examples/keda.yaml looks for Prometheus
HOST = "asleep.example.com"
FEW = Mix(grpc=1, fresh=1, kept=0, rate=2)
_KEDA = pytest.mark.usefixtures("driven")

pytestmark = pytest.mark.alone  # the whole cluster's Conch is installed anew


@pytest.fixture(scope="module")
def driven(place: Place) -> Iterator[None]:
    """Conch with KEDA and Prometheus. All ScaledObjects go before KEDA does, for it holds them by a finalizer."""
    place.namespace(MONITORING)
    url = prometheus.deploy(place, MONITORING)
    with keda.deploy(place):
        place.install(metricsApi="keda", prometheus=url)
        try:
            yield
        finally:
            until(lambda: not place.kube.list(SCALED_OBJECT), "no ScaledObject is left")
            # As docs/keda.md has it. Else the operator that stands by takes over without the right that it had.
            ended = ["deployment", OPERATOR, f"--namespace={SYSTEM}", "--cascade=foreground", "--timeout=60s"]
            place.kube.run("delete", *ended)
            place.install()


def read_number(address: str, query: str, ago: float = 0.0) -> float | None:
    """Return the first number of a Prometheus query, evaluated `ago` seconds ago; None: the result is empty."""
    parameters = urllib.parse.urlencode({"query": query, "time": time.time() - ago})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{parameters}", timeout=10) as answer:
        series = json.load(answer)["data"]["result"]
    return float(series[0]["value"][1]) if series else None


@_KEDA
def test_the_last_pod_goes_and_comes_back(
    place: Place, kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    [example] = (one for one in examples.all_examples() if one.file.stem == "keda")
    triggers = yaml.safe_load(example.file.read_text())["spec"]["predictor"]["autoscaling"]["triggers"]
    with place.reach(MONITORING, "prometheus", prometheus.PORT) as [monitoring]:
        # Requests of another story to the gateway would keep the pod for the time that the example sets.
        query = triggers[0]["metadata"]["query"]
        # KEDA evaluates its query at the beginning of the present second.
        until(
            lambda: read_number(monitoring, query, ago=2) == 0,
            "the gateway has received no request for a minute",
            seen=lambda: read_number(monitoring, query, ago=2),
        )
    kube.apply(example.file, namespace)
    service = Service(kube, namespace, example.name)
    revision = service.until_ready()["stable"]
    service.until_condition("Autoscaling", "True")
    service.until_condition("Ready", "True", reason="ScaledToZero")
    assert service.deployment(revision)["spec"]["replicas"] == 0
    service.until_condition("Serving", "True", reason="ScaledToZero")  # the pod answers until it is deleted
    [asleep] = service.status["revisions"]
    assert (asleep["phase"], asleep["replicas"]) == ("ScaledToZero", {"ready": 0, "desired": 0})
    assert service.condition("Reconciling") == {}
    assert service.condition("Autoscaling")["status"] == "True"

    selector = f"{names.LABEL_SERVICE}={service.name}"
    # One that drains answers what still comes.
    until(lambda: not kube.list(POD, namespace, selector), "the last pod is gone")

    with Traffic(gateway.address, gateway.address, filetypes.picture_request(example.model), FEW, HOST) as traffic:
        service.until_condition("Ready", "True", reason="Served")
        until(lambda: traffic.sent > traffic.failed, "requests are answered again", seen=lambda: str(traffic))
    figure(str(traffic))
    assert all(tally.latencies for tally in (traffic.tallies["grpc"], traffic.tallies["fresh"])), str(traffic)
    failures = {failure.text for failure in traffic.tallies["fresh"].failures}
    assert not [text for text in failures if "404" in text or "connect error" in text], "a pod that is not ready"
    assert service.status["stable"] == revision
    service.delete()


@_KEDA
def test_a_short_word_adds_a_pod_and_turning_it_off_takes_the_word_away(
    place: Place, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    service = serve("rated", maxReplicas=2, autoscaling={"requestsPerSecond": 8})
    revision = service.until_ready()["stable"]
    hers = until(lambda: service.children(AUTOSCALER), "KEDA has made an autoscaler")
    assert [autoscaler["metadata"]["name"] for autoscaler in hers] == [f"keda-hpa-{revision}"], "and Conch has not"
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, filetypes.picture_request("rated"), Mix(grpc=2, fresh=2, kept=0, rate=10)),
    ):
        service.until_condition("Autoscaling", "True")
        until(lambda: len(service.ready_pods()) == 2, "two pods are ready", seen=lambda: service.status)
        with place.reach(MONITORING, "prometheus", prometheus.PORT) as [monitoring]:
            pods = f'namespace="{service.namespace}",pod=~"{revision}-.*"'
            found = {
                metric: read_number(monitoring, build_promql(metric, pods, model="rated")) for metric in TritonMetric
            }
    figure(", ".join(f"{metric}: {answer}" for metric, answer in found.items()))
    assert found.pop(TritonMetric.GPU_UTILIZATION) is None, "the machine has a GPU"
    assert (found[TritonMetric.REQUESTS_PER_SECOND] or 0) > 8
    assert all(value is not None and value >= 0 for value in found.values()), found
    service.patch({"predictor": {"maxReplicas": None, "minReplicas": 2, "autoscaling": None}})
    until(lambda: not service.children(SCALED_OBJECT), "the ScaledObject is gone")
    assert service.until_ready()["stable"] == revision
    assert len(service.ready_pods()) == 2


@_KEDA
def test_a_scaled_object_of_another_owner_stays(
    kube: Kube, namespace: str, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    service = serve("named")
    revision = service.until_ready()["stable"]
    ref = Ref(SCALED_OBJECT, revision)
    spec = {"scaleTargetRef": {"name": "other"}, "triggers": [{"type": "cpu", "metadata": {"value": "50"}}]}
    head = {"apiVersion": SCALED_OBJECT.api_version, "kind": SCALED_OBJECT.name, "metadata": {"name": revision}}
    kube.apply({**head, "spec": spec}, namespace)
    service.patch({"predictor": {"maxReplicas": 2, "autoscaling": {"requestsPerSecond": 8}}})
    message = service.until_condition("Ready", "False", reason="NameTaken")["message"]
    assert f"{ref} exists and belongs to no controller" in message
    figure(message)
    found = kube.get(SCALED_OBJECT, namespace, revision) or {}
    assert found["spec"] == spec
    assert FIELD_MANAGER not in {entry["manager"] for entry in found["metadata"]["managedFields"]}
    kube.delete(SCALED_OBJECT, namespace, revision)
    assert service.until_ready()["stable"] == revision
    service.until_condition("Autoscaling", "True")


@_KEDA
def test_the_permissions_for_keda_are_those_in_use(place: Place) -> None:
    assert place.local is not None
    account = Account(SYSTEM, OPERATOR)
    may = {use for use in granted(place.kube, account) if use.group == SCALED_OBJECT.group}
    assert {use.resource for use in may} == {SCALED_OBJECT.plural}
    assert not may - used(place.local.audit_log, account)
