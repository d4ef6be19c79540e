"""From requests that wait in Triton's queue to the replicas that an autoscaler desires (P10).

The control plane, its HorizontalPodAutoscaler controller, the metrics API and Triton are real; the pods are kwok's, all
at the address of that one Triton. Each rise begins at another moment of the autoscaler's period.
`python -m tests.bench.autoscaler`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from conch.api.kinds import AUTOSCALER, DEPLOYMENT, POD, Ref
from conch.api.metrics import TritonMetric
from conch.write import Server
from conch.write.lists import Listing, list_objects
from conch_contract import names
from tests.api.metrics_api import MetricsProcess, pod, status
from tests.bench import results
from tests.bench.services import connect, new_namespace
from tests.bench.stage import open_cluster
from tests.cluster import Cluster, clients
from tests.cluster.controlplane import AUTOSCALER_SECONDS
from tests.serving.slow import SlowTriton
from tests.support.kube import Kube

ADDRESS: Final = "127.0.0.82"
CLIENTS: Final = 4  # requests at a time; the model computes one
REQUEST_SECONDS: Final = 0.1
WAIT_SECONDS: Final = 120
_NAME: Final = "scaled"
_EVERY: Final = 0.1  # seconds between two reads of an object
_LABELS: Final = {names.LABEL_REVISION: _NAME}


@dataclass(frozen=True)
class Rises:
    """Several times requests began to wait.

    Attributes:
        period_seconds: of the autoscaler.
        seconds: of each rise, from the first request until the autoscaler desires more replicas.
        median_periods: their median, in periods.
        longest_periods: the longest one, in periods.
        longest_excess_seconds: the longest one less one period; what the target allows is 1 s.
    """

    period_seconds: float
    seconds: tuple[float, ...]
    median_periods: float
    longest_periods: float
    longest_excess_seconds: float

    @classmethod
    def of(cls, period: float, seconds: list[float]) -> Rises:
        """Return the figures of some rises.

        >>> Rises.of(5.0, [2.0, 6.5, 4.0])  # doctest: +ELLIPSIS
        Rises(period_seconds=5.0, ..., median_periods=0.8, longest_periods=1.3, longest_excess_seconds=1.5)
        """
        return cls(
            period_seconds=period,
            seconds=tuple(round(each, 2) for each in seconds),
            median_periods=round(statistics.median(seconds) / period, 2),
            longest_periods=round(max(seconds) / period, 2),
            longest_excess_seconds=round(max(seconds) - period, 2),
        )


def build_objects(namespace: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return a Deployment of one pod, and its autoscaler as Conch builds it, which goes down without delay."""
    metadata = {"name": _NAME, "namespace": namespace}
    template = pod(_NAME, _NAME, _NAME)
    template = {
        "metadata": {key: template["metadata"][key] for key in ("labels", "annotations")},
        "spec": {"containers": template["spec"]["containers"]},
    }
    metric = {
        "metric": {"name": TritonMetric.QUEUE_TO_COMPUTE_RATIO.value},
        "target": {"type": "AverageValue", "averageValue": "1"},
    }
    deployment = {"replicas": 1, "selector": {"matchLabels": _LABELS}, "template": template}
    autoscaler = {
        "scaleTargetRef": {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name, "name": _NAME},
        "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [{"type": "Pods", "pods": metric}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    return [
        (kind, {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec})
        for kind, spec in ((DEPLOYMENT, deployment), (AUTOSCALER, autoscaler))
    ]


async def set_addresses(server: Server, namespace: str) -> None:
    """Set Triton's address in the status of each pod that runs at another one, until cancelled."""
    running = json.loads(status(ADDRESS))
    while True:
        async for each in list_objects(server, Listing(POD, namespace, names.LABEL_REVISION)):
            name, now = each["metadata"]["name"], each.get("status", {})
            if now.get("phase") == "Running" and now.get("podIP") != ADDRESS:
                meta = {"name": name, "namespace": namespace}
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, **running}
                await server.apply_status(POD, body, "kubelet")
        await asyncio.sleep(_EVERY)


async def wait_desired(server: Server, namespace: str, replicas: int, metric: str) -> float:
    """Wait until the autoscaler desires so many replicas and knows the metric; return when, by `time.monotonic()`.

    Raises:
        TimeoutError: it does not within two minutes. The message has its status.
    """
    now: dict[str, Any] = {}
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                body = await server.get(namespace, Ref(AUTOSCALER, _NAME)) or {}
                now = body.get("status", {})
                if now.get("desiredReplicas") == replicas and metric in json.dumps(now.get("currentMetrics")):
                    return time.monotonic()
                await asyncio.sleep(_EVERY)
    except TimeoutError as error:
        raise TimeoutError(f"the autoscaler does not desire {replicas} replicas; its status: {now}") from error


@asynccontextmanager
async def in_background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Work that is cancelled at the end; an error of it is raised then."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def keep_waiting(triton: SlowTriton) -> None:
    """Send requests from some clients at a time, until cancelled."""
    await asyncio.gather(*(triton.send(REQUEST_SECONDS, times=10**6) for _ in range(CLIENTS)))


async def measure(kube: Kube, cluster: Cluster, rises: int) -> Rises:
    """Measure some rises, one after the other, each from an empty queue and one replica."""
    folder, metric = Path(tempfile.mkdtemp(prefix="conch-bench-")), TritonMetric.QUEUE_TO_COMPUTE_RATIO.value
    triton, seconds = SlowTriton(folder, ADDRESS, names.METRICS_PORT), list[float]()
    try:
        async with await connect(cluster) as server, new_namespace(server, "autoscaler") as namespace:
            with MetricsProcess(cluster, kube, folder / "metrics.log") as process:
                await asyncio.to_thread(process.until_answering)
                for kind, body in build_objects(namespace):
                    await server.create(kind, body)
                async with in_background(set_addresses(server, namespace)):
                    for number in range(rises):
                        await wait_desired(server, namespace, 1, metric)
                        await asyncio.sleep(AUTOSCALER_SECONDS * (1 + number / rises))  # another moment of its period
                        began = time.monotonic()
                        async with in_background(keep_waiting(triton)):
                            seconds.append(await wait_desired(server, namespace, 2, metric) - began)
                        click.echo(f"rise {number + 1} of {rises}: {seconds[-1]:.1f} s", err=True)
    finally:
        triton.process.kill()
    return Rises.of(AUTOSCALER_SECONDS, seconds)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rises", type=click.IntRange(1), default=10, show_default=True, help="How often requests begin to wait."
)
@click.option(
    "--output", default=results.FOLDER / "autoscaler.json", show_default=True, type=click.Path(path_type=Path)
)
def main(rises: int, output: Path) -> None:
    """Measure how soon an autoscaler desires more replicas."""
    cluster = open_cluster()
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        found = asyncio.run(measure(kube, cluster, rises))
    Console().print(asdict(found))
    results.write(output, asdict(found))


if __name__ == "__main__":
    main()
