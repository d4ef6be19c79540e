"""What the operator needs over the number of services, and what ends first: `python -m tests.bench.scale`.

Pods are kwok's, the API server is real. Services beyond 2,000 have no pods: those cost the other programs of the
control plane more time than the operator. The figures of each size are printed and written as soon as they are there.
The cluster is taken down in the end, which takes a second: to delete ten thousand services takes longer than to create
them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import click
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.bench import results
from tests.bench.sizes import Size, measure
from tests.bench.stage import cluster_named, open_cluster


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
@click.option(
    "--pods", type=click.IntRange(0), default=2_000, show_default=True, help="Services beyond this have no pods."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=results.FOLDER / "scale.json",
    show_default=True,
    help="File for the figures, as JSON.",
)
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="File for the picture.")
def main(sizes: Sequence[int], pods: int, output: Path, picture: Path | None) -> None:
    """Measure the operator over the number of services."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no operator is left

    def report(found: Sequence[Size]) -> None:
        Console().print(draw_table(found))
        results.write(output, [asdict(size) for size in found])
        if picture:
            draw(found, picture)

    cluster_named("scale").down()  # one that a killed run has left has its services
    cluster = open_cluster("scale")
    try:
        asyncio.run(measure(cluster, sizes, pods, report))
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
