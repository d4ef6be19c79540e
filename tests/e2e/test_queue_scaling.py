"""What a queue does that CPU does not see: pods come while requests wait, go when none waits, and fail no request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from conch.api.kinds import API_SERVICE, AUTOSCALER, DEPLOYMENT
from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support import conch
from tests.support.doubling import build_predictor, environment
from tests.support.kube import Kube, KubectlError
from tests.support.place import CHART, METRICS_API, RELEASE, SYSTEM, Place
from tests.support.ramp import Course, draw
from tests.support.service import Service
from tests.support.wait import until

# As a model on a GPU: it takes its time, and no CPU. A pod answers ten requests a second.
SLOW = {**build_predictor(2), "pod": environment(FACTOR=2, SLEEPS=0.1)}
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
SOON = {"scaleDown": {"stabilizationWindowSeconds": 15, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 5}]}}
MOST = 4
BY_CPU = {
    "metrics": [
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": "cpu",
                "container": names.TRITON_CONTAINER,
                "target": {"type": "Utilization", "averageUtilization": 80},
            },
        }
    ]
}
BY_QUEUE = {"queueToComputeRatio": 1}
Serve = Callable[..., Service]

pytestmark = pytest.mark.xdist_group("metrics API")  # it is taken away; no other story scales by its values


class Watcher:
    """What an autoscaler wanted and what there was, from entering to leaving."""

    def __init__(self, service: Service, revision: str) -> None:
        self._service, self._revision = service, revision
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: list[tuple[float, int, int]] = []  # seconds since the epoch, desired, ready

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _look(self) -> None:
        kube, namespace = self._service.kube, self._service.namespace
        while not self._stop.wait(0.25):
            scaler = kube.get(AUTOSCALER, namespace, self._revision) or {}
            deployment = kube.get(DEPLOYMENT, namespace, self._revision) or {}
            desired = scaler.get("status", {}).get("desiredReplicas", 0)
            ready = deployment.get("status", {}).get("readyReplicas", 0)
            self.seen.append((time.time(), desired, ready))

    def reached(self, pods: int) -> float | None:
        """When so many pods were first wanted."""
        return next((moment for moment, desired, _ in self.seen if desired >= pods), None)


@dataclass
class Loaded:
    """One service under the ramp."""

    service: Service
    watcher: Watcher
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def began(self) -> float:
        return moment(self.runs[0])

    def course(self, title: str) -> Course:
        """Everything that was seen, in seconds of the ramp."""
        latencies = [
            (moment(run) - self.began + each["second"], each["p99"]) for run in self.runs for each in run["series"]
        ]
        return Course(title, latencies, [(at - self.began, want, there) for at, want, there in self.watcher.seen])

    def has_pods(self) -> bool:
        """Whether several pods are ready, and as many as are wanted."""
        _, desired, ready = self.watcher.seen[-1]
        return desired == ready > 1

    @property
    def failed(self) -> int:
        return sum(map(conch.count_unserved, self.runs))

    @property
    def sent(self) -> int:
        return sum(run["scheduled"] for run in self.runs)


def moment(run: dict[str, Any]) -> float:
    """When a run began, in seconds since the epoch."""
    return datetime.fromisoformat(run["started"]).timestamp()


def load(place: Place, service: Service, rate: str, duration: str) -> Callable[[], dict[str, Any]]:
    """Start a load on a service's cluster address; return a function that waits for its figures."""
    running = conch.start(
        place, "load", service.name, f"--namespace={service.namespace}", f"--rate={rate}", f"--duration={duration}",
        "--timeout=60s", "--concurrency=4096", "-o", "json",
    )  # fmt: skip

    def figures() -> dict[str, Any]:
        output, errors = running.communicate(timeout=180)
        assert output, errors
        found: dict[str, Any] = json.loads(output)
        return found

    return figures


def load_all(place: Place, services: list[Loaded], rate: str, duration: str) -> list[dict[str, Any]]:
    """Load services at the same time; returns the figures of each, once all requests are answered."""
    waiting = [load(place, each.service, rate, duration) for each in services]
    runs = [figures() for figures in waiting]
    for each, run in zip(services, runs, strict=True):
        each.runs.append(run)
    return runs


def test_the_queue_scales_what_cpu_does_not_see(place: Place, serve: Serve, figure: Callable[[str], None]) -> None:
    """Two services of the same slow model under the same ramp at the same time: one by its queue, one by its CPU."""
    common = {**SLOW, "resources": RESOURCES, "maxReplicas": MOST}
    queue = serve("queue", **common, autoscaling={**BY_QUEUE, "behavior": SOON})
    cpu = serve("cpu", **common, autoscaling={**BY_CPU, "behavior": SOON})
    both = []
    for service in (queue, cpu):
        revision = service.until_ready()["stable"]
        service.until_condition("Autoscaling", "True")
        both.append(Loaded(service, Watcher(service, revision)))
    by_queue, by_cpu = both
    with by_queue.watcher, by_cpu.watcher:
        for rate, duration in (("2", "5s"), ("2..20", "30s")):
            load_all(place, both, rate, duration)
        # More than one pod takes, until those that the autoscaler wants are there: how soon pods come is not the point.
        until(lambda: load_all(place, both, "15", "5s") and by_queue.has_pods(), "the pods that it wants came")
        full = load_all(place, both, "20", "20s")
        load_all(place, both, "2", "25s")
        until(
            lambda: by_queue.watcher.seen[-1][1:] == (1, 1),
            "one pod is left",
            seen=lambda: by_queue.watcher.seen[-3:],
        )
    courses = [by_queue.course("by queueToComputeRatio 1"), by_cpu.course("by 80 % of the CPU request")]
    latencies = [run["latencyMilliseconds"] for run in full]
    for course, each, latency in zip(courses, both, latencies, strict=True):
        figure(
            f"{course}; p50 {latency['p50']} ms, p99 {latency['p99']} ms at the full rate;"
            f" {each.failed} of {each.sent} failed"
        )
    Path("build").mkdir(exist_ok=True)
    draw(courses, Path("build/autoscaling.png"))
    most = max(desired for _, desired, _ in by_queue.watcher.seen)
    assert by_queue.failed == 0, [(run["failures"], run["lateReasons"]) for run in by_queue.runs]
    assert latencies[0]["p99"] < latencies[1]["p99"], "on its pods fewer requests wait than on one"
    assert max(desired for _, desired, _ in by_cpu.watcher.seen) < most, "CPU does not show that requests wait"


@pytest.fixture(scope="module")
def scaled(kube: Kube, shared_namespace: str) -> Service:
    """A slow model on one to three pods, by its queue; it goes back to one as soon as it may."""
    at_once = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    predictor = {**SLOW, "resources": RESOURCES, "maxReplicas": 3, "autoscaling": {**BY_QUEUE, "behavior": at_once}}
    kube.apply(manifest("scaled", **predictor), shared_namespace)
    service = Service(kube, shared_namespace, "scaled")
    service.until_ready()
    service.until_condition("Autoscaling", "True")
    return service


def test_the_autoscaler_knows_waiting_requests_within_a_period(
    place: Place, scaled: Service, figure: Callable[[str], None]
) -> None:
    """From the first request of a burst to the autoscaler that wants more pods; its period is 5 s here."""
    revision = scaled.status["stable"]
    with Watcher(scaled, revision) as watcher:
        run = load(place, scaled, "20", "15s")()
        wanted = until(lambda: watcher.reached(2), "more pods are wanted", seen=lambda: watcher.seen[-3:])
    figure(f"more pods are wanted {wanted - moment(run):.1f} s after the first request of a burst")


def test_the_autoscaler_holds_while_the_metrics_api_is_away(place: Place, kube: Kube, scaled: Service) -> None:
    """The metrics API is taken away under a service of several pods, and comes back."""
    revision = scaled.status["stable"]
    figures = load(place, scaled, "20", "1m")  # it outlasts the start of a pod
    until(lambda: len(scaled.ready_pods()) >= 2, "more pods came")
    scale = ("scale", "deployment", METRICS_API, f"--namespace={SYSTEM}")
    kube.run(*scale, "--replicas=0")
    try:
        condition = scaled.until_condition("Autoscaling", "False", "FailedGetPodsMetric")
        assert "custom metrics API" in condition["message"]
        held = scaled.deployment(revision)["spec"]["replicas"]
        figures()
        assert scaled.condition("Ready")["status"] == "True", "what serves goes on serving"
        assert scaled.deployment(revision)["spec"]["replicas"] == held >= 2
    finally:
        kube.run(*scale, "--replicas=1")
    scaled.until_condition("Autoscaling", "True")
    until(lambda: scaled.deployment(revision)["spec"]["replicas"] == 1, "the autoscaler acts again")


def test_a_foreign_autoscaler_is_named(kube: Kube, scaled: Service) -> None:
    target = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name, "name": scaled.status["stable"]}
    theirs = {
        "apiVersion": AUTOSCALER.api_version,
        "kind": AUTOSCALER.name,
        "metadata": {"name": "mine-too"},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
    }
    kube.apply(theirs, scaled.namespace)
    condition = scaled.until_condition("Autoscaling", "False", "AmbiguousSelector")
    assert "mine-too" in condition["message"]
    kube.delete(AUTOSCALER, scaled.namespace, "mine-too")
    scaled.until_condition("Autoscaling", "True")


def test_a_metric_that_does_not_exist_is_named(scaled: Service) -> None:
    metric = {"metric": {"name": "queue_length"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    misspelt = [{"type": "Pods", "pods": metric}]
    scaled.patch({"predictor": {"autoscaling": {"queueToComputeRatio": None, "metrics": misspelt}}})
    condition = scaled.until_condition("Autoscaling", "False", "FailedGetPodsMetric")
    assert "there is no metric queue_length" in condition["message"]
    assert "triton_queue_to_compute_ratio" in condition["message"]
    scaled.patch({"predictor": {"autoscaling": {**BY_QUEUE, "metrics": None}}})
    scaled.until_condition("Autoscaling", "True")


def test_a_foreign_metrics_api_is_not_replaced(place: Place, kube: Kube) -> None:
    """An older version of the same API belongs to an adapter: Helm reports it, and changes nothing."""
    name = "v1beta1.custom.metrics.k8s.io"
    theirs = {
        "apiVersion": API_SERVICE.api_version,
        "kind": API_SERVICE.name,
        "metadata": {"name": name},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "monitoring", "name": "prometheus-adapter"},
        },
    }
    kube.apply(theirs)
    try:
        with pytest.raises(KubectlError) as refusal:
            place.helm("upgrade", "--install", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--dry-run=server")
    finally:
        kube.delete(API_SERVICE, "", name)
    assert f"APIService {name} leads to Service monitoring/prometheus-adapter, which is not of this release" in str(
        refusal.value
    )
    assert "Set autoscaling.metricsApi to prometheus-adapter" in str(refusal.value)


def test_viewers_may_read_the_metrics_of_autoscalers(kube: Kube, scaled: Service) -> None:
    path = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{scaled.namespace}/pods/*/triton_requests_per_second"
    with pytest.raises(KubectlError, match=r"(?i)forbidden"):
        kube.run("get", f"--raw={path}", "--as=ann")
    kube.run("create", "rolebinding", "viewer", f"--namespace={scaled.namespace}", "--clusterrole=view", "--user=ann")

    def may() -> bool:
        try:
            return bool(json.loads(kube.run("get", f"--raw={path}", "--as=ann"))["items"])
        except KubectlError:
            return False

    until(may, "a viewer reads it")
