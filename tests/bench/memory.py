"""What the operator's memory goes to in a burst, commit by commit: `python -m tests.bench.memory COMMIT...`.

memray counts each allocation, also those of libraries in C; its heap is that of the moment with the most in use. It is
installed beside each commit's own libraries, since nothing else needs it. Python's own allocator is left out: it takes
memory in pieces of a MiB, each of which would count for the line that needed the first object in it.
"""

from __future__ import annotations

import asyncio
import csv
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from tests.api.operator import install_crd
from tests.bench import burst
from tests.bench.controllers import CONCH, Program
from tests.bench.history import build
from tests.bench.profile import classify, draw
from tests.bench.stage import open_cluster
from tests.cluster import clients
from tests.support.kube import Kube

_MEMRAY: Final = "memray==1.20.0"
_IMPORT: Final = "<frozen importlib"


def add_up(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return the MiB of each part, the most first.

    Args:
        rows: those of `memray transform csv`, whose stacks begin with the innermost frame.

    >>> add_up([{"size": "1048576", "stack_trace": "split;/x/conch/decide/track.py;3|run;/x/base.py;7"}])
    {'decide': 1.0}
    >>> add_up([{"size": "524288", "stack_trace": "<module>;/x/conch/decide/track.py;3|load;<frozen importlib>;7"}])
    {'imports': 0.5}
    """
    found: Counter[str] = Counter()
    for row in rows:
        frames = [frame.split(";") for frame in row["stack_trace"].split("|")]
        stack = ";".join(f"{file}:{name}" for name, file, *_ in reversed(frames) if file)
        found["imports" if _IMPORT in stack else classify(stack)] += int(row["size"])
    return {part: round(size / 2**20, 2) for part, size in found.most_common()}


def measure(commit: str, folder: Path, services: int) -> tuple[str, dict[str, float]]:
    """Return a commit's name, and the MiB of each part of its operator's heap.

    Args:
        commit: the commit.
        folder: for its clone.
        services: how many are created at once.

    Raises:
        subprocess.CalledProcessError: its environment cannot be built.
    """
    clone, heap = folder / commit, folder / f"{commit}.heap"
    program = build(commit, clone)
    scripts = clone / ".venv/bin"
    subprocess.run([scripts / "uv", "pip", "install", "--quiet", f"--python={scripts}/python", _MEMRAY], check=True)
    memray = (str(scripts / "memray"),)
    command = ("env", "PYTHONMALLOC=malloc", *memray, "run", "--aggregate", "--quiet", "--output", str(heap))
    traced = Program(program.name, (*command, *program.command), CONCH.ready_port, CONCH.ready_path)
    cluster = open_cluster()
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        install_crd(kube, clone)
    asyncio.run(burst.measure(traced, cluster, services))
    table = heap.with_suffix(".csv")
    subprocess.run([*memray, "transform", "csv", "--output", table, heap], check=True, stdout=subprocess.DEVNULL)
    csv.field_size_limit(2**31)
    with table.open(newline="") as rows:
        return program.name, add_up(csv.DictReader(rows))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("commits", nargs=-1)
@click.option("--services", type=click.IntRange(1), default=200, show_default=True, help="How many are created.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="File for the picture.")
def main(commits: Sequence[str], services: int, picture: Path | None) -> None:
    """Show what the memory of the operators of COMMITS goes to; without any, of the last one."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for commit in commits or ("HEAD",):
            name, parts = measure(commit, Path(folder), services)
            found[name] = parts
            click.echo(f"{name}: {sum(parts.values()):.1f} MiB")
            for part, mebibytes in parts.items():
                click.echo(f"{mebibytes:6.2f} MiB  {part}")
    if picture:
        draw(found, picture, f"heap of {services} services in a burst, MiB", "MiB")


if __name__ == "__main__":
    main()
