"""What it costs to serve autoscalers the metrics of a thousand pods: CPU, memory, and how long an autoscaler waits.

The pods are kwok's on a real API server, all at the address of one real Triton; the requests go through the API
server's aggregation, as a HorizontalPodAutoscaler's do, in its period of 15 seconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from conch.api.kinds import NAMESPACE, POD
from conch.write import Server
from conch.write.server import METADATA_LIST
from conch_contract import names
from tests.api.metrics_api import ROOT, MetricsProcess, pod, status
from tests.bench import results
from tests.bench.figures import figures_of
from tests.bench.services import clear
from tests.bench.stage import open_cluster
from tests.cluster import Cluster, clients
from tests.serving.slow import SlowTriton
from tests.support.kube import Kube

FAKE_NODES = 2
PERIOD = 15.0  # seconds: that of a HorizontalPodAutoscaler
ADDRESS = "127.0.0.81"


@dataclass(frozen=True)
class Cost:
    """Some minutes of requests."""

    pods: int
    autoscalers: int
    seconds: float
    core: float  # share of one core
    idle_mib: float
    full_mib: float
    answer_p50: float  # seconds
    answer_p99: float
    missing: int  # pods that an answer lacks


async def make(server: Server, namespace: str, pods: int, services: int) -> None:
    """Make pods, spread evenly over services, which kwok pretends to run; then set one address in the status of all."""
    gate = asyncio.Semaphore(16)

    async def bind(number: int) -> None:
        name = f"s{number % services}"
        body = pod(f"p{number}", name, name)
        body["metadata"]["namespace"] = namespace
        body["spec"] = {**body["spec"], "nodeName": f"fake-{number % FAKE_NODES + 1}"}
        async with gate:
            await server.create(POD, body)

    async def place(number: int) -> None:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}", "namespace": namespace}}
        async with gate:
            await server.apply_status(POD, body | json.loads(status(ADDRESS)), "kubelet")

    await asyncio.gather(*(bind(number) for number in range(pods)))
    running = [("fieldSelector", "status.phase=Running")]
    async with asyncio.timeout(120):
        while True:
            found = await server._call("GET", "list", POD, POD.path(namespace), running, None, "", METADATA_LIST)
            if len(found["items"]) == pods:
                break
            await asyncio.sleep(0.5)
    await asyncio.gather(*(place(number) for number in range(pods)))


async def follow(
    server: Server, namespace: str, service: int, services: int, seconds: float
) -> list[tuple[float, int]]:
    """Be an autoscaler: send a request once a period; return the seconds and the number of pods of each answer."""
    path = f"{ROOT}/namespaces/{namespace}/pods/*/triton_queue_to_compute_ratio"
    query = [("labelSelector", f"{names.LABEL_REVISION}=s{service}")]
    await asyncio.sleep(PERIOD * service / services)
    found, due, end = [], time.monotonic(), time.monotonic() + seconds
    while due < end:
        await asyncio.sleep(due - time.monotonic())
        due += PERIOD
        began = time.monotonic()
        answer: dict[str, Any] = await server._call("GET", "get", POD, path, query, None, "")
        found.append((time.monotonic() - began, len(answer["items"])))
    return found


async def measure(kube: Kube, cluster: Cluster, pods: int, services: int, seconds: float) -> Cost:
    """Measure one process through some minutes of requests."""
    namespace = f"bench-scrape-{time.time_ns() // 1_000_000}"
    folder = Path(tempfile.mkdtemp(prefix="conch-bench-"))
    triton = SlowTriton(folder, ADDRESS, names.METRICS_PORT)
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        await server.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            with MetricsProcess(cluster, kube, folder / "metrics.log") as process:
                await asyncio.to_thread(process.until_answering)
                assert process.process is not None
                idle = figures_of(process.process.pid)
                await make(server, namespace, pods, services)
                await asyncio.sleep(PERIOD)  # the watch has delivered all of them
                before, began = figures_of(process.process.pid), time.monotonic()
                answers = await asyncio.gather(
                    *(follow(server, namespace, each, services, seconds) for each in range(services))
                )
                took, after = time.monotonic() - began, figures_of(process.process.pid)
        finally:
            triton.process.kill()
            await clear(server, namespace)
    waits = sorted(wait for each in answers for wait, _ in each)
    return Cost(
        pods=pods,
        autoscalers=services,
        seconds=round(took, 1),
        core=round((after.cpu_seconds - before.cpu_seconds) / took, 4),
        idle_mib=round(idle.mib, 1),
        full_mib=round(after.mib, 1),
        answer_p50=round(statistics.median(waits), 4),
        answer_p99=round(waits[int(0.99 * (len(waits) - 1))], 4),
        missing=sum(pods // services - listed for each in answers for _, listed in each),
    )


@click.command()
@click.option("--pods", default=1000, show_default=True)
@click.option("--autoscalers", default=100, show_default=True)
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--output", default=results.FOLDER / "scrape.json", show_default=True, type=click.Path(path_type=Path))
def main(pods: int, autoscalers: int, seconds: float, output: Path) -> None:
    """Measure the metrics API."""
    cluster = open_cluster()
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        cost = asyncio.run(measure(kube, cluster, pods, autoscalers, seconds))
    Console().print(asdict(cost))
    results.write(output, asdict(cost))


if __name__ == "__main__":
    main()
