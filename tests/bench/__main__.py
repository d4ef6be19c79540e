"""`make bench`: the operator beside R on one API server, in turns; a table, and the same as JSON.

Nothing here fails on time: a figure is for reading. Pods are kwok's, the API server is real.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from conch.api.child_kinds import CHILDREN, OPTIONAL
from conch.api.kinds import INFERENCE_SERVICE, Kind, Ref
from conch.write import Server
from conch.write.lists import Listing, list_objects
from conch_contract import names
from tests.api.operator import Audit, install_crd, isvc
from tests.cluster import Cluster, clients
from tests.support.kube import Kube
from tests.support.ports import free_port

CHILDREN_EACH = 6
NAMESPACE = Kind("", "v1", "Namespace", "namespaces")


@dataclass(frozen=True)
class Run:
    """One controller, one burst."""

    who: str
    services: int
    seconds: float
    cpu_seconds: float
    idle_mib: float
    full_mib: float
    writes_each: float
    reads_each: float

    @property
    def per_second(self) -> float:
        return self.services / self.seconds

    @property
    def kib_each(self) -> float:
        return (self.full_mib - self.idle_mib) * 1024 / self.services


@dataclass(frozen=True)
class Figures:
    """What a process has used."""

    cpu_seconds: float
    mib: float


def figures_of(pid: int) -> Figures:
    """Return what a process has used until now."""
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int((proc / "statm").read_text().split()[1])
    return Figures(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


class Process:
    """A controller under measurement."""

    def __init__(self, command: list[str], cluster: Cluster, namespace: str) -> None:
        env = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "CONCH_SERVING_IMAGE": "conch/serving:test",
            "NAMESPACE": namespace,  # R's; Conch serves all
            "CONCH_PROBE_PORT": str(free_port()),
            "CONCH_METRICS_PORT": str(free_port()),
        }
        log = Path("build/bench.log")
        log.parent.mkdir(exist_ok=True)
        self._process = subprocess.Popen(command, env=env, stdout=log.open("ab"), stderr=subprocess.STDOUT)

    @property
    def cpu_seconds(self) -> float:
        return figures_of(self._process.pid).cpu_seconds

    @property
    def mib(self) -> float:
        return figures_of(self._process.pid).mib

    def check(self) -> None:
        """Raise if it has ended by itself: build/bench.log has its last words."""
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"{self._process.args!r} ended with exit code {code}; see build/bench.log")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(30)


async def burst(server: Server, process: Process, namespace: str, count: int) -> None:
    """Create many services at once, and wait until all their children are there."""
    await asyncio.gather(
        *(
            server.create(INFERENCE_SERVICE, {**body, "metadata": {**body["metadata"], "namespace": namespace}})
            for body in (isvc(f"s{number}") for number in range(count))
        )
    )
    wanted = count * CHILDREN_EACH
    async with asyncio.timeout(300):
        while await children(server, namespace) < wanted:
            process.check()
            await asyncio.sleep(0.1)


async def clear(server: Server, namespace: str) -> None:
    """Delete a namespace and wait until it is gone: the next controller must not see its services."""
    await server.delete("", Ref(NAMESPACE, namespace))
    async with asyncio.timeout(300):
        while await server.metadata("", Ref(NAMESPACE, namespace)):  # noqa: ASYNC110  as above
            await asyncio.sleep(1)


async def children(server: Server, namespace: str) -> int:
    """Count the children of a namespace, of the kinds that every cluster has."""
    kinds = [kind for kind in CHILDREN if kind not in OPTIONAL]
    listings = [Listing(kind, namespace, names.LABEL_SERVICE, metadata_only=True) for kind in kinds]
    return sum([1 for listing in listings async for _ in list_objects(server, listing)])


async def measure(who: str, command: list[str], cluster: Cluster, count: int) -> Run:
    """Run one controller through one burst in a namespace of its own."""
    namespace = f"bench-{who.lower()}-{time.time_ns() // 1_000_000}"
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        await server.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        process = Process(command, cluster, namespace)
        try:
            await asyncio.sleep(8)  # up and listed: an idle process is what is measured
            idle, cpu, audit, began = process.mib, process.cpu_seconds, Audit(cluster), time.monotonic()
            await burst(server, process, namespace, count)
            seconds = time.monotonic() - began
            await asyncio.sleep(10)  # what comes after the children belongs to the burst's cost
            calls = [c for c in audit.calls("conch/") if c.get("objectRef", {}).get("namespace") == namespace]
            mine = [c for c in calls if c["objectRef"]["resource"] != "inferenceservices" or c["verb"] != "create"]
            reads = [c for c in mine if c["verb"] == "get"]
            writes = [c for c in mine if c["verb"] in {"patch", "delete", "create"}]
            return Run(
                who=who,
                services=count,
                seconds=round(seconds, 2),
                cpu_seconds=round(process.cpu_seconds - cpu, 2),
                idle_mib=round(idle, 1),
                full_mib=round(process.mib, 1),
                writes_each=round(len(writes) / count, 2),
                reads_each=round(len(reads) / count, 2),
            )
        finally:
            process.end()
            await clear(server, namespace)


def show(runs: list[Run]) -> None:
    """Print the table: the median of each controller's runs."""
    table = Table("", "services/s", "CPU s", "idle MiB", "full MiB", "KiB each", "writes each", "reads each")
    for who in dict.fromkeys(run.who for run in runs):
        mine = [run for run in runs if run.who == who]
        figures = (
            statistics.median(getattr(run, field) for run in mine)
            for field in ("per_second", "cpu_seconds", "idle_mib", "full_mib", "kib_each", "writes_each", "reads_each")
        )
        table.add_row(who, *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


@click.command()
@click.option("--services", default=200, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--output", default="build/bench.json", show_default=True)
def main(services: int, rounds: int, output: str) -> None:
    """Measure the operator beside R."""
    cluster = Cluster("conch-api")
    cluster.up(nodes=0, kwok=True)
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        install_crd(kube)
    commands = {
        "R": [sys.executable, "-m", "tests.bench.reference"],
        "conch": [str(Path(sys.executable).with_name("conch"))],
    }
    runs: list[Run] = []
    for number in range(rounds):
        for who, command in commands.items():
            click.echo(f"round {number + 1} of {rounds}: {who}, {services} services", err=True)
            runs.append(asyncio.run(measure(who, command, cluster, services)))
    show(runs)
    records: list[dict[str, Any]] = [asdict(run) for run in runs]
    Path(output).parent.mkdir(exist_ok=True)
    Path(output).write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
