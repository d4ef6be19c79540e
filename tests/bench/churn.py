"""Services that come, change and go for some time: what the operator has of memory, tasks and descriptors meanwhile.

A leak is a line that climbs: the slope of the second half of the time, when what is allocated once is there, is
reported for a day. `python -m tests.bench.churn --minutes 60 --picture docs/figures/churn.png`
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import click
from matplotlib.figure import Figure

from conch.api.kinds import INFERENCE_SERVICE, NAMESPACE, Ref
from conch.write import Server
from tests.api.operator import isvc
from tests.bench import results
from tests.bench.controllers import read_image_settings
from tests.bench.figures import figures_of
from tests.bench.slope import Slope, compute_slope, describe
from tests.bench.stage import open_cluster
from tests.cluster import Cluster
from tests.support.ports import free_port

_SERVICES = 20  # services at a time
_SAMPLE_SECONDS = 10.0
_MINUTES_A_DAY = 24 * 60
_TASKS = re.compile(r"^conch_tasks (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What the process had at a moment."""

    minutes: float
    mib: float
    tasks: int
    descriptors: int
    services: int  # that have come so far


class Watched:
    """An operator that is measured."""

    def __init__(self, cluster: Cluster) -> None:
        self._metrics_port = free_port()
        env = {
            **os.environ,
            **read_image_settings(),
            "KUBECONFIG": str(cluster.kubeconfig),
            "CONCH_SERVING_IMAGE": "conch/serving:test",
            "CONCH_PROBE_PORT": str(free_port()),
            "CONCH_METRICS_PORT": str(self._metrics_port),
        }
        log = Path("build/churn.log")
        log.parent.mkdir(exist_ok=True)
        command = [str(Path(sys.executable).with_name("conch"))]
        self._process = subprocess.Popen(command, env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT)

    def sample(self, minutes: float, services: int) -> Sample:
        """Measure."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as answer:
            found = _TASKS.search(answer.read().decode())
        descriptors = len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))
        tasks = int(float(found[1])) if found else 0
        return Sample(round(minutes, 2), round(figures_of(self._process.pid).mib, 1), tasks, descriptors, services)

    def end(self) -> None:
        """End it with SIGTERM."""
        self._process.terminate()
        self._process.wait(30)


async def churn(server: Server, namespace: str, operator: Watched, minutes: float, every: float) -> list[Sample]:
    """Let a service come, one change and one go every some seconds, for some minutes."""
    services: deque[str] = deque()
    samples: list[Sample] = []
    start = sampled = time.monotonic()
    for number in count():
        now = time.monotonic()
        if now - start > minutes * 60:
            return samples
        name = f"s{number}"
        await _create(server, namespace, isvc(name, minReplicas=1 + number % 2))
        services.append(name)
        changed = {"spec": {"predictor": {"model": {"storageUri": f"s3://models/{number}"}}}}
        await server.merge(namespace, Ref(INFERENCE_SERVICE, services[len(services) // 2]), changed, "churn")
        if len(services) > _SERVICES:
            await server.delete(namespace, Ref(INFERENCE_SERVICE, services.popleft()))
        if now - sampled >= _SAMPLE_SECONDS:
            sampled = now
            samples.append(await asyncio.to_thread(operator.sample, (now - start) / 60, number))
            click.echo(f"\r{samples[-1]}", err=True, nl=False)
        await asyncio.sleep(every)
    return samples


async def _create(server: Server, namespace: str, body: Mapping[str, object]) -> None:
    meta = dict(body["metadata"]) if isinstance(body["metadata"], Mapping) else {}
    await server.create(INFERENCE_SERVICE, {**body, "metadata": {**meta, "namespace": namespace}})


def extrapolate(samples: Sequence[Sample]) -> Slope:
    """Return how memory grows in a day, in MiB, by the samples of the second half of the time.

    >>> extrapolate([Sample(minute, 80 + min(minute, 5) + minute / 32, 40, 70, 0) for minute in range(11)]).median
    45.0

    Raises:
        ValueError: the second half has fewer than two samples.
    """
    half = samples[-1].minutes / 2
    return compute_slope([(each.minutes, each.mib) for each in samples if each.minutes >= half]).scale(_MINUTES_A_DAY)


def draw(samples: Sequence[Sample], slope: Slope, file: Path) -> None:
    """Draw each figure over the time."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    minutes = [sample.minutes for sample in samples]
    for place, (field, label) in zip(
        axes, (("mib", "memory, MiB"), ("tasks", "asyncio tasks"), ("descriptors", "file descriptors")), strict=True
    ):
        place.plot(minutes, [getattr(sample, field) for sample in samples])
        place.set_ylabel(label)
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    axes[0].set_title(f"{samples[-1].services} services came, changed and went: {describe(slope)}", fontsize="medium")
    figure.savefig(file)


async def run(cluster: Cluster, minutes: float, every: float) -> list[Sample]:
    """Measure in a namespace of its own, which goes in the end."""
    namespace = f"churn-{int(time.time())}"
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        await server.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        operator = Watched(cluster)
        try:
            await asyncio.sleep(5)
            return await churn(server, namespace, operator, minutes, every)
        finally:
            operator.end()
            await server.delete("", Ref(NAMESPACE, namespace))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=60.0, show_default=True, help="How long services come and go.")
@click.option("--every", default=3.0, show_default=True, help="Seconds between two services.")
@click.option("--output", default=results.FOLDER / "churn.json", show_default=True, type=click.Path(path_type=Path))
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the figures into this file too.")
def main(minutes: float, every: float, output: Path, picture: Path | None) -> None:
    """Let services come, change and go, and show what the operator has meanwhile."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no operator and no namespace is left
    samples = asyncio.run(run(open_cluster(), minutes, every))
    slope = extrapolate(samples)
    click.echo(f"\n{samples[-1].services} services in {minutes:g} minutes; memory: {describe(slope)}")
    figures = {"minutes": minutes, "mib_a_day": asdict(slope), "samples": [asdict(sample) for sample in samples]}
    results.write(output, figures)
    if picture is not None:
        draw(samples, slope, picture)


if __name__ == "__main__":
    main()
