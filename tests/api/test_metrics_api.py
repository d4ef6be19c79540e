"""The metrics API behind a real API server, and a real Triton behind the metrics API."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import resource
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from conch.api.kinds import API_SERVICE, AUTOSCALER, DEPLOYMENT, POD
from conch.api.metrics import API_SERVICE_NAME, TritonMetric
from conch.metrics.access import Access, BusyError, User
from conch.write import Server
from conch_contract import names
from tests.api.metrics_api import (
    NAME,
    NAMESPACE,
    ROOT,
    MetricsProcess,
    get_metrics,
    numbers,
    pod,
    registered,
    start_pod,
)
from tests.api.operator import relayed
from tests.cluster import Cluster
from tests.serving.slow import MODEL, WITH_GPU, SlowTriton
from tests.support.kube import Kube, KubectlError
from tests.support.wait import until

BUSY, IDLE, SILENT = "127.0.0.71", "127.0.0.72", "127.0.0.73"
PODS = {"busy": BUSY, "idle": IDLE, "silent": SILENT}


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SlowTriton]]:
    """Two Tritons, at the port at which every pod has its metrics."""
    found = {
        ip: SlowTriton(tmp_path_factory.mktemp("triton"), ip, names.METRICS_PORT, model)
        for ip, model in ((BUSY, WITH_GPU), (IDLE, MODEL))
    }
    yield found
    for triton in found.values():
        triton.process.kill()


@pytest.fixture(scope="module")
def api(cluster: Cluster, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsProcess]:
    with MetricsProcess(cluster, kube, tmp_path_factory.mktemp("metrics") / "log") as process:
        process.until_answering()
        yield process


@pytest.fixture
def pods(kube: Kube, namespace: str, tritons: dict[str, SlowTriton]) -> Iterator[str]:
    """Three pods of two revisions of a service: one that is busy, one that is idle, and one that does not answer."""
    del tritons
    kube.apply([pod("busy", "m-1", "m"), pod("idle", "m-2", "m"), pod("silent", "m-2", "m")], namespace)
    for name, ip in PODS.items():
        start_pod(kube, namespace, name, ip)
    yield namespace
    kube.run("delete", "pods", "--all", f"--namespace={namespace}", "--grace-period=0", "--force")


@pytest.mark.usefixtures("api")
def test_clients_find_what_there_is(kube: Kube) -> None:
    group = json.loads(kube.run("get", "--raw=/apis/custom.metrics.k8s.io"))
    assert group["preferredVersion"]["groupVersion"] == "custom.metrics.k8s.io/v1beta2"
    listed = {resource["name"] for resource in get_metrics(kube, "")["resources"]}
    for metric in TritonMetric:
        assert {f"pods/{metric}", f"inferenceservices.conch.dev/{metric}", f"namespaces/{metric}"} <= listed


@pytest.mark.usefixtures("api")
async def test_the_metrics_that_an_autoscaler_reads_are_the_counters_of_triton(
    kube: Kube, pods: str, tritons: dict[str, SlowTriton]
) -> None:
    rps = "triton_requests_per_second"
    path = f"/namespaces/{pods}/pods/*/{rps}"
    began = time.monotonic()
    first = await asyncio.to_thread(get_metrics, kube, path)
    assert set(numbers(first)) == {"busy", "idle"}, "who does not answer is left out: it is not idle"
    await tritons[BUSY].send(0.05, times=40)
    await asyncio.sleep(1.1)  # a reading is good for a second
    second = await asyncio.to_thread(get_metrics, kube, path)
    assert numbers(second)["idle"] == "0"
    assert 40 / (time.monotonic() - began + 1) <= milli(numbers(second)["busy"]) <= 40 / 1.0
    item = next(item for item in second["items"] if item["describedObject"]["name"] == "busy")
    assert item["describedObject"]["namespace"] == pods
    assert 0 < item["windowSeconds"] <= 30
    latency = await asyncio.to_thread(
        get_metrics, kube, f"/namespaces/{pods}/pods/busy/triton_inference_latency_seconds"
    )
    assert 0.05 <= milli(numbers(latency)["busy"]) < 0.2

    def values_of(path: str, **query: str) -> dict[str, str]:
        return numbers(get_metrics(kube, path, **query))

    gpus = values_of(f"/namespaces/{pods}/pods/*/triton_gpu_utilization")
    assert gpus == {"busy": "750m"}, "a pod without a GPU has no value"
    assert set(values_of(path, labelSelector=f"{names.LABEL_REVISION}=m-1")) == {"busy"}
    assert set(values_of(path, labelSelector=f"{names.LABEL_REVISION} in (m-2),!absent")) == {"idle"}
    assert values_of(path, labelSelector="app=other") == {}
    assert values_of(path, metricLabelSelector="model=m") == {}, "our metrics have no labels"
    service = values_of(f"/namespaces/{pods}/inferenceservices.conch.dev/m/{rps}")
    assert milli(service["m"]) == pytest.approx(milli(numbers(second)["busy"]), rel=0.5)
    assert set(values_of(f"/namespaces/{pods}/metrics/{rps}")) == {pods}


@pytest.mark.usefixtures("api")
def test_a_metric_that_is_missing_is_an_error_with_the_reason(kube: Kube, pods: str) -> None:
    with pytest.raises(KubectlError, match="there is no metric queue_length of pods; there are triton_queue_to"):
        get_metrics(kube, f"/namespaces/{pods}/pods/*/queue_length")
    with pytest.raises(KubectlError, match="has no value of triton_pending_requests at this moment"):
        get_metrics(kube, f"/namespaces/{pods}/pods/silent/triton_pending_requests")
    with pytest.raises(KubectlError, match=r"has no /apis/custom\.metrics"):
        get_metrics(kube, f"/namespaces/{pods}/services/m/triton_pending_requests")
    with pytest.raises(KubectlError, match="is not a label selector"):
        get_metrics(kube, f"/namespaces/{pods}/pods/*/triton_pending_requests", labelSelector="a in b")


@pytest.mark.usefixtures("api")
def test_users_need_the_right(kube: Kube, pods: str) -> None:
    path = f"/namespaces/{pods}/pods/*/triton_pending_requests"
    with pytest.raises(KubectlError, match=r"(?i)forbidden"):
        kube.run("get", f"--raw={ROOT}{path}", "--as=ann")
    grant(kube, pods, "User", "ann")
    until(lambda: may(kube, path), "ann may")
    with pytest.raises(KubectlError, match=r"(?i)forbidden"):
        kube.run("get", f"--raw={ROOT}/namespaces/default/pods/*/triton_pending_requests", "--as=ann")


def may(kube: Kube, path: str) -> bool:
    try:
        kube.run("get", f"--raw={ROOT}{path}", "--as=ann")
    except KubectlError:
        return False
    return True


def grant(kube: Kube, namespace: str, kind: str, name: str) -> None:
    """Allow a user to read the metrics of autoscalers, as the chart's role for viewers does."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "metrics"},
        "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get"]}],
    }
    kube.apply(role, namespace)
    subject = f"--user={name}" if kind == "User" else f"--serviceaccount={namespace}:{name}"
    kube.run("create", "rolebinding", f"metrics-{name}", f"--namespace={namespace}", "--role=metrics", subject)


def test_a_client_that_calls_the_pod_directly_is_checked_too(kube: Kube, pods: str, api: MetricsProcess) -> None:
    """Straight to the pod, past the API server: headers are ignored, tokens and permissions are reviewed."""
    path = f"{ROOT}/namespaces/{pods}/pods/*/triton_pending_requests"
    assert knock(api, path) == 401
    forged = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    assert knock(api, path, **forged) == 401
    assert knock(api, path, Authorization="Bearer nonsense") == 401
    kube.run("create", "serviceaccount", "robot", f"--namespace={pods}")
    token = kube.run("create", "token", "robot", f"--namespace={pods}").strip()
    assert knock(api, path, Authorization=f"Bearer {token}") == 403
    grant(kube, pods, "ServiceAccount", "robot")
    until(lambda: knock(api, path, Authorization=f"Bearer {token}") == 200, "robot may")


async def test_invented_tokens_are_reviewed_a_few_at_a_time(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    relay, kubeconfig = relayed(cluster, tmp_path)
    account = kube.run("create", "token", "default", "--namespace=default").strip()
    async with await Server.connect(str(kubeconfig)) as server:
        access = Access(server)
        user = await access.authenticate(account)
        assert user is not None
        assert user.name == "system:serviceaccount:default:default"
        relay.flows.clear()  # the API server is slow
        invented = [asyncio.create_task(access.authenticate(f"invented-{number}")) for number in range(50)]
        busy, waiting = await asyncio.wait(invented, return_when=asyncio.FIRST_COMPLETED)
        assert (len(busy), len(waiting)) == (42, 8)
        assert {type(task.exception()) for task in busy} == {BusyError}
        assert await access.authenticate(account) == user, "a known one needs no review"
        relay.flows.set()
        assert await asyncio.gather(*waiting) == [None] * 8
    relay.close()


async def test_a_user_with_many_requests_delays_no_review_of_anothers_rights(cluster: Cluster, tmp_path: Path) -> None:
    relay, kubeconfig = relayed(cluster, tmp_path)
    busy, calm = User("busy", (), "", ()), User("calm", (), "", ())
    async with await Server.connect(str(kubeconfig)) as server:
        access = Access(server)
        relay.flows.clear()  # the API server is slow
        many = [
            asyncio.create_task(access.is_allowed(busy, {"verb": "get", "name": f"n{number}"})) for number in range(200)
        ]
        await asyncio.sleep(0)
        one = asyncio.create_task(access.is_allowed(calm, {"verb": "get"}))
        relay.flows.set()
        assert not await one
        assert sum(not task.done() for task in many) > 100
        assert not any(await asyncio.gather(*many))
    relay.close()


def knock(api: MetricsProcess, path: str, **headers: str) -> int:
    """Send a request to the process itself, and return the code."""
    context = ssl.create_default_context(cadata=shown(api.port))
    context.check_hostname = False  # it is called by its Service's name, and this is another
    request = urllib.request.Request(f"https://127.0.0.1:{api.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310  it is https
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def shown(port: int) -> str:
    """The certificate that a server shows."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


@pytest.mark.usefixtures("api")
async def test_an_autoscaler_follows_the_queue(kube: Kube, namespace: str, tritons: dict[str, SlowTriton]) -> None:
    """A real HorizontalPodAutoscaler: from requests that wait to a Deployment that wants more pods.

    It follows CPU too, and there is no metrics-server: it adds pods all the same, and takes none away.
    """
    kube.apply([deployment(), autoscaler()], namespace)
    first = await asyncio.to_thread(until, lambda: kube.list(POD, namespace), "the Deployment has a pod", 30)
    start_pod(kube, namespace, first[0]["metadata"]["name"], BUSY)

    def active(*, truth: str = "True", reason: str = "") -> bool:
        there = kube.get(AUTOSCALER, namespace, "scaled") or {}
        conditions = (c for c in there.get("status", {}).get("conditions", ()) if c["type"] == "ScalingActive")
        return any(c["status"] == truth and reason in {"", c["reason"]} for c in conditions)

    def status_of_autoscaler() -> object:
        return (kube.get(AUTOSCALER, namespace, "scaled") or {}).get("status")

    held = functools.partial(active, truth="False", reason="FailedGetContainerResourceMetric")
    await asyncio.to_thread(until, held, "the status has the metric that is missing", 60, seen=status_of_autoscaler)
    requests = [asyncio.create_task(tritons[BUSY].send(0.3, times=60)) for _ in range(4)]
    try:
        await asyncio.to_thread(
            until, lambda: wanted(kube, namespace) > 1, "more pods are wanted", 60, seen=lambda: wanted(kube, namespace)
        )
        await asyncio.to_thread(until, active, "it follows the metric that it has", 30, seen=status_of_autoscaler)
    finally:
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    await asyncio.to_thread(until, held, "the status has why no pod is removed", 60, seen=status_of_autoscaler)
    assert wanted(kube, namespace) > 1


def wanted(kube: Kube, namespace: str) -> int:
    there = kube.get(DEPLOYMENT, namespace, "scaled") or {}
    return int(there["spec"]["replicas"])


def deployment() -> dict[str, object]:
    """A Deployment whose pods no node runs."""
    made = pod("", "scaled", "scaled")
    template = {"metadata": {key: made["metadata"][key] for key in ("labels", "annotations")}, "spec": made["spec"]}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": "scaled"},
        "spec": {"selector": {"matchLabels": {names.LABEL_REVISION: "scaled"}}, "template": template},
    }


def autoscaler() -> dict[str, object]:
    target = {"type": "AverageValue", "averageValue": "1"}
    metric = {"metric": {"name": "triton_queue_to_compute_ratio"}, "target": target}
    cpu = {"name": "cpu", "container": "triton", "target": {"type": "Utilization", "averageUtilization": 80}}
    return {
        "apiVersion": AUTOSCALER.api_version,
        "kind": AUTOSCALER.name,
        "metadata": {"name": "scaled"},
        "spec": {
            "scaleTargetRef": {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name, "name": "scaled"},
            "minReplicas": 1,
            "maxReplicas": 4,
            "metrics": [{"type": "Pods", "pods": metric}, {"type": "ContainerResource", "containerResource": cpu}],
        },
    }


def milli(value: str) -> float:
    """Read a quantity such as 1250m."""
    sizes = {"m": 1e-3, "u": 1e-6, "n": 1e-9}
    return float(value[:-1]) * sizes[value[-1]] if value[-1] in sizes else float(value)


class MetricReader:
    """Reads a metric repeatedly, and counts the failures. A context manager."""

    def __init__(self, kube: Kube, path: str) -> None:
        self._kube, self._path = kube, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.reads, self.failures = 0, list[str]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _read(self) -> None:
        while not self._stop.is_set():
            self.reads += 1
            try:
                found = self._kube.read(self._path)
                if found is None:
                    self.failures.append("404")
            except KubectlError as error:
                self.failures.append(str(error))
            time.sleep(0.05)


def test_a_certificate_is_changed_without_a_gap(cluster: Cluster, kube: Kube, api: MetricsProcess, log: Path) -> None:
    """Its lifetime is short here: another one is served, and no client notices."""
    api.stop()
    with MetricsProcess(cluster, kube, log, CONCH_CERTIFICATE_LIFE="24s") as short:
        short.until_answering()
        seen = {shown(short.port)}
        with MetricReader(kube, f"{ROOT}/namespaces/default/pods/*/triton_pending_requests") as reader:

            def changed() -> bool:
                seen.add(shown(short.port))
                return len(seen) >= 2

            until(changed, "it was changed", seen=short.log)
        assert reader.failures == []
        assert reader.reads > 100


def test_the_api_service_of_another_adapter_is_left_alone(cluster: Cluster, kube: Kube, log: Path) -> None:
    with MetricsProcess(cluster, kube, log) as process:
        process.until_answering()
        kube.apply(registered("monitoring", "prometheus-adapter"))
        before = until(lambda: kube.get(API_SERVICE, "", API_SERVICE_NAME), "it is registered")["spec"]
        assert before["service"]["namespace"] == "monitoring"
        code, text = until(lambda: hindered(process), "the metrics API reports whose it is", seen=process.log)
        assert code == 503
        assert f"names monitoring/prometheus-adapter instead of {NAMESPACE}/{NAME}" in text
        after = kube.get(API_SERVICE, "", API_SERVICE_NAME)
        assert after is not None
        assert after["spec"] == before


def hindered(process: MetricsProcess) -> tuple[int, str] | None:
    found = process.probe()
    return found if found[0] == 503 else None


def test_a_bundle_that_a_user_removed_is_restored(cluster: Cluster, kube: Kube, log: Path) -> None:
    """A GitOps controller may apply the APIService as the chart has it, without what we wrote."""
    with MetricsProcess(cluster, kube, log) as process:
        process.until_answering()
        kube.patch(API_SERVICE, "", API_SERVICE_NAME, {"spec": {"caBundle": None}})

        def back() -> bool:
            there = kube.get(API_SERVICE, "", API_SERVICE_NAME) or {}
            return bool(there["spec"].get("caBundle"))

        until(back, "the bundle is back", seen=process.log)
        process.until_answering()


def test_the_port_speaks_tls_alone(cluster: Cluster, kube: Kube, log: Path) -> None:
    with MetricsProcess(cluster, kube, log) as process:
        process.until_answering()
        with socket.create_connection(("127.0.0.1", process.port), timeout=5) as plain:
            plain.sendall(b"GET /apis HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(64).startswith(b"HTTP/1.1 2")


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many connections as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_idle_connections_keep_no_autoscaler_from_its_metrics(cluster: Cluster, kube: Kube, log: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(MetricsProcess(cluster, kube, log))
        api.until_answering()
        for number in range(1500):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), 10))
            if number % 2:
                with contextlib.suppress(OSError):  # the server has closed it already
                    stack.enter_context(context.wrap_socket(connection, server_hostname="a"))
            if number % 100 == 0:
                assert get_metrics(kube, "")["resources"]
        assert get_metrics(kube, "")["resources"]
        assert api.process is not None
        status = Path(f"/proc/{api.process.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))
        assert peak < 256, "MiB, half of what the chart allows"
