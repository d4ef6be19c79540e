"""How long new pods wait for their model: each for itself, from a claim, and from each other.

    python -m tests.bench.starts [--pods 50] [--mib 128] [--line 120] [--output FOLDER]

Agents are processes on this machine, without Triton; a pod's time begins with its manifest, when the agent is live,
and ends when the model is laid out. The store is
SeaweedFS behind a line of so many MiB/s for all of them, as a store or its network has a limit; what pods send each
other passes over loopback.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.bench.models import MIB
from tests.bench.starts.measuring import Bench, Start, measure_fleets, measure_sizes
from tests.serving.store import Store


def draw_table(starts: Sequence[Start]) -> Table:
    """Return the starts as a table."""
    table = Table("pods", "MiB", "way", "seconds", "MiB from the store", "MiB from pods")
    for each in starts:
        amounts = (f"{amount / MIB:,.0f}" for amount in (each.from_store, each.from_pods))
        table.add_row(str(each.pods), f"{each.mib:,}", each.way, f"{each.seconds:.1f}", *amounts)
    return table


def draw_picture(starts: Sequence[Start], file: Path) -> None:
    """Draw the time of one pod over the size of its model."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(each.way for each in starts):
        line = [(each.mib, each.seconds) for each in starts if each.way == way]
        axes.plot(*zip(*line, strict=True), marker="o", label=way)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("MiB of the model")
    axes.set_ylabel("seconds from the manifest")
    axes.legend()
    figure.savefig(file, dpi=120)


@click.command()
@click.option("--pods", default=50, show_default=True, help="Pods that start at once.")
@click.option("--mib", default=128, show_default=True, help="Size of their model.")
@click.option("--line", default=120, show_default=True, help="What the store sends in all, in MiB a second.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for starts.json, starts.png.")
def main(pods: int, mib: int, line: int, output: Path | None) -> None:
    """Measure, and print two tables."""
    with tempfile.TemporaryDirectory(prefix="conch-bench-") as folder:
        store = Store(Path(folder) / "store")
        bench = Bench(Path(folder), store, line)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no agent is left
        try:
            sizes, fleets = measure_sizes(bench), measure_fleets(bench, pods, mib)
        finally:
            bench.close()
    for starts in (sizes, fleets):
        Console().print(draw_table(starts))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        found = [asdict(each) for each in (*sizes, *fleets)]
        (output / "starts.json").write_text(json.dumps(found, indent=1) + "\n")
        draw_picture(sizes, output / "starts.png")


if __name__ == "__main__":
    main()
