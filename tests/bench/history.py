"""What a new service costs the operator, commit by commit: `python -m tests.bench.history COMMIT...`.

The operators of all commits are measured in turns on one API server, each with the CRD and the libraries of its commit.
So how fast the machine is at the moment concerns all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Final

import click
from matplotlib.figure import Figure

from tests.api.operator import install_crd
from tests.bench import burst, results
from tests.bench.burst import Burst
from tests.bench.controllers import CONCH, Program
from tests.bench.stage import open_cluster
from tests.cluster import clients
from tests.cluster.paths import REPOSITORY
from tests.support.kube import Kube

# Of a burst's figures: the label of the axis.
_SHOWN: Final[Mapping[str, str]] = {
    "cpu_ms_per_child": "processor time\nof a child, ms",
    "kib_each": "memory\nof a service, KiB",
    "idle_mib": "memory\nidle, MiB",
    "reconciles_each": "reconciles\nof a service",
}


def build(commit: str, clone: Path) -> Program:
    """Clone a commit, build its environment, and return the program that runs its operator.

    Raises:
        subprocess.CalledProcessError: there is no such commit, or its environment cannot be built.
    """
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", REPOSITORY, clone], check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=clone, check=True)
    subprocess.run(["make", ".venv"], cwd=clone, check=True, stdout=sys.stderr)
    shown = ["git", "show", "--no-patch", "--format=%cs-%h", "HEAD"]
    name = subprocess.run(shown, cwd=clone, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return Program(name, (str(clone / ".venv/bin/conch"),), CONCH.ready_port, CONCH.ready_path)


def draw(runs: Mapping[str, Sequence[Burst]], file: Path) -> None:
    """Draw the median of each figure over the commits."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(len(_SHOWN), 1, sharex=True)
    for place, (name, label) in zip(axes, _SHOWN.items(), strict=True):
        values = [statistics.median(getattr(run, name) for run in found) for found in runs.values()]
        place.plot(list(runs), values, marker="o")
        place.set_ylabel(label)
        place.set_ylim(0, 1.1 * max(*values, 1))
        place.grid(alpha=0.3)
    axes[-1].tick_params(axis="x", rotation=30)
    figure.savefig(file, dpi=110)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("commits", nargs=-1, required=True)
@click.option(
    "--services", type=click.IntRange(1), default=200, show_default=True, help="How many are created at once."
)
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Runs of each commit, in turns.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File for each run's figures, as JSON.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="File for the picture.")
def main(commits: Sequence[str], services: int, rounds: int, output: Path | None, picture: Path | None) -> None:
    """Measure the operators of commits, the oldest first, in bursts of new services."""
    cluster = open_cluster()
    with tempfile.TemporaryDirectory() as folder:
        clones = [Path(folder) / commit for commit in commits]
        programs = [build(*each) for each in zip(commits, clones, strict=True)]
        runs: dict[str, list[Burst]] = {program.name: [] for program in programs}
        for number, (program, clone) in product(range(rounds), zip(programs, clones, strict=True)):
            click.echo(f"{program.name}, round {number + 1} of {rounds}", err=True)
            with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
                install_crd(kube, clone)
            runs[program.name].append(asyncio.run(burst.measure(program, cluster, services)))
            click.echo(str(runs[program.name][-1]))
            if output:
                results.write(output, [asdict(run) for found in runs.values() for run in found])
    if picture:
        draw(runs, picture)


if __name__ == "__main__":
    main()
