"""What the operator needs over the number of services, and what ends first: `python -m tests.bench.scale`.

Pods are kwok's, the API server is real. The cluster is taken down in the end, which takes a second: to delete ten
thousand services takes longer than to create them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import click
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from conch.write import Server
from tests.bench.controllers import CONCH, Controller, running
from tests.bench.edits import User
from tests.bench.figures import percentile
from tests.bench.services import connect, create_namespace, create_services, watch_children
from tests.bench.stage import open_cluster
from tests.cluster import Cluster

NAMESPACE_SERVICES: Final = 100
EDITS: Final = 50
_EDITS: Final = "edits"  # a namespace
REST_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Size:
    """One number of services.

    Attributes:
        services: how many there are.
        services_per_second: as those that the last size lacks were created at once, until all are settled.
        cpu_ms_each: processor time of each of those.
        mib: resident memory, in MiB.
        kib_each: the difference to the operator without services, in KiB a service.
        edit_p50_ms: of a user's edits, one after the other, each until the Deployment has changed.
        edit_p99_ms: likewise.
        restart_seconds: of a new process, until it has reconciled all services.
        restart_cpu_seconds: its processor time until then.
        restart_writes: its writes.
        restart_mib: its memory then, in MiB.
        rest_percent: of a core, that it uses afterwards, while nothing happens.
    """

    services: int
    services_per_second: float
    cpu_ms_each: float
    mib: float
    kib_each: float
    edit_p50_ms: float
    edit_p99_ms: float
    restart_seconds: float
    restart_cpu_seconds: float
    restart_writes: int
    restart_mib: float
    rest_percent: float


async def create_more(server: Server, before: int, services: int) -> None:
    """Create the services that the last size lacks, all of a namespace at once."""
    for first in range(before, services, NAMESPACE_SERVICES):
        name = f"scale-{first}"
        await create_namespace(server, name)
        added = min(NAMESPACE_SERVICES, services - first)
        await create_services(server, name, added)
        click.echo(f"\r{first + added} services created", err=True, nl=False)
    click.echo(err=True)


async def measure_rest(controller: Controller) -> float:
    """Return the share of a core that a controller uses while nothing happens, in percent."""
    before, began = controller.figures, time.monotonic()
    await asyncio.sleep(REST_SECONDS)
    used = controller.figures.cpu_seconds - before.cpu_seconds
    return 100 * used / (time.monotonic() - began)


async def measure(cluster: Cluster, sizes: Sequence[int]) -> list[Size]:
    """Measure the operator at each of some numbers of services, the smallest first."""
    found: list[Size] = []
    async with (
        await connect(cluster) as server,
        await connect(cluster) as other,
        watch_children(other, _EDITS) as children,
    ):
        await create_namespace(server, _EDITS)
        with running(CONCH, cluster, "") as controller:
            await controller.wait_started()
            empty = controller.figures.mib
            await User(other, _EDITS, children, controller).create()
        for services in sorted(sizes):
            before = found[-1].services if found else 0
            with running(CONCH, cluster, "") as controller:
                await controller.settle(before)
                start, began = controller.figures, time.monotonic()
                await create_more(server, before, services)
                settled, grown = await controller.settle(services), controller.figures
                edits = await User(other, _EDITS, children, controller).edit(lambda number: number < EDITS)
                await controller.settle(services)
            with running(CONCH, cluster, "") as controller:
                again, restarted = await controller.settle(services), controller.figures
                writes = (await controller.read_work()).writes
                rest = await measure_rest(controller)  # without agents, new pods are polled for a minute
            found.append(
                Size(
                    services=services,
                    services_per_second=round((services - before) / (settled - began), 2),
                    cpu_ms_each=round(1000 * (grown.cpu_seconds - start.cpu_seconds) / (services - before), 1),
                    mib=round(grown.mib, 1),
                    kib_each=round(1024 * (grown.mib - empty) / services, 1),
                    edit_p50_ms=round(percentile(edits, 50), 1),
                    edit_p99_ms=round(percentile(edits, 99), 1),
                    restart_seconds=round(again - controller.started, 1),
                    restart_cpu_seconds=round(restarted.cpu_seconds, 1),
                    restart_writes=writes,
                    restart_mib=round(restarted.mib, 1),
                    rest_percent=round(rest, 1),
                )
            )
            click.echo(str(found[-1]), err=True)
    return found


def draw_table(found: Sequence[Size]) -> Table:
    """Return a row for each figure and a column for each number of services."""
    table = Table("", *(f"{size.services:,} services" for size in found))
    for name in (field.name for field in fields(Size) if field.name != "services"):
        table.add_row(name.replace("_", " "), *(f"{getattr(size, name):,g}" for size in found))
    return table


def draw(found: Sequence[Size], file: Path) -> None:
    """Draw figures over the number of services."""
    shown = {
        "mib": "memory, MiB",
        "cpu_ms_each": "processor time of a new service, ms",
        "edit_p99_ms": "an edit, 99th percentile, ms",
        "restart_seconds": "a restart, s",
    }
    figure = Figure(figsize=(9, 6), layout="constrained")
    for place, (name, label) in zip(figure.subplots(2, 2).flat, shown.items(), strict=True):
        place.plot([size.services for size in found], [getattr(size, name) for size in found], marker="o")
        place.set_ylabel(label)
        place.set_xlabel("services")
        place.set_xlim(left=0)
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--services",
    "sizes",
    type=click.IntRange(1),
    multiple=True,
    default=[2_000, 5_000, 10_000],
    show_default=True,
    help="How many services; repeatable.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File for the figures, as JSON.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="File for the picture.")
def main(sizes: Sequence[int], output: Path | None, picture: Path | None) -> None:
    """Measure the operator over the number of services."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no operator is left
    cluster = open_cluster("scale")
    try:
        found = asyncio.run(measure(cluster, sizes))
    finally:
        cluster.down()
    Console().print(draw_table(found))
    if output:
        output.write_text(json.dumps([asdict(size) for size in found], indent=2) + "\n")
    if picture:
        draw(found, picture)


if __name__ == "__main__":
    main()
