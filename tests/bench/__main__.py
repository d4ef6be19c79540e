"""`make bench`: the operator beside R on one API server, in turns; a table for each measurement, and all runs as JSON.

Nothing here fails on time: a figure is for reading. Pods are kwok's, the API server is real.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from tests.bench import burst, edits, idle, paced, restart, results
from tests.bench.burst import Burst
from tests.bench.controllers import CONCH, Program, R
from tests.bench.edits import Edits
from tests.bench.idle import Idle
from tests.bench.paced import Paced
from tests.bench.restart import Restart
from tests.bench.stage import open_cluster
from tests.cluster import Cluster

Record = Burst | Paced | Edits | Restart | Idle
PROGRAMS: Final = {
    "burst": (R, CONCH),
    "paced": (R, CONCH),
    "edits": (CONCH,),
    "restart": (R, CONCH),
    "idle": (CONCH,),
}
SIZES: Final = {"burst": (200, 500, 2_000), "paced": (200,), "edits": (2_000,), "restart": (2_000,)}
_IN_TITLE: Final = frozenset({"who", "services", "rate"})


async def measure(measurement: str, program: Program, cluster: Cluster, services: int, rate: float) -> Record:
    """Run one measurement of one program."""
    match measurement:
        case "burst":
            return await burst.measure(program, cluster, services)
        case "paced":
            return await paced.measure(program, cluster, services, rate)
        case "edits":
            return await edits.measure(program, cluster, services)
        case "restart":
            return await restart.measure(program, cluster, services)
        case _:
            return await idle.measure(program, cluster)


def list_turns(measurements: Sequence[str], sizes: Sequence[int], rate: float) -> Iterator[tuple[str, int, str]]:
    """Yield what is measured, with how many services, and its title.

    Args:
        measurements: names of `PROGRAMS`. `idle` has no service, so one turn.
        sizes: numbers of services; none: those that the targets name for each measurement.
        rate: creations a second.

    >>> for turn in list_turns(["burst", "paced", "idle"], [], 10.0):
    ...     print(turn)
    ('burst', 200, 'burst, 200 services')
    ('burst', 500, 'burst, 500 services')
    ('burst', 2000, 'burst, 2000 services')
    ('paced', 200, 'paced, 200 services, 10 a second')
    ('idle', 0, 'idle, no service')
    """
    for measurement in measurements:
        if measurement == "idle":
            yield measurement, 0, "idle, no service"
            continue
        for services in sizes or SIZES[measurement]:
            title = f"{measurement}, {services} services" + (f", {rate:g} a second" if measurement == "paced" else "")
            yield measurement, services, title


def draw_table(title: str, records: Sequence[Record]) -> Table:
    """Return the median of each figure over the rounds: a row for each figure, a column for each controller."""
    programs = list(dict.fromkeys(record.who for record in records))
    table = Table("", *programs, *(["conch / R"] if len(programs) > 1 else []), title=title)
    for name in (field.name for field in fields(records[0]) if field.name not in _IN_TITLE):
        medians = [statistics.median(getattr(each, name) for each in records if each.who == who) for who in programs]
        ratios = [f"{medians[1] / medians[0]:.2f}" if medians[0] else "-"] if len(medians) > 1 else []
        table.add_row(name.replace("_", " "), *(f"{median:,g}" for median in medians), *ratios)
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--measure",
    "measurements",
    type=click.Choice(list(PROGRAMS)),
    multiple=True,
    default=list(PROGRAMS),
    show_default=True,
    help="What to measure; repeatable.",
)
@click.option(
    "--services",
    "sizes",
    type=click.IntRange(1),
    multiple=True,
    help="How many services; repeatable.  [default: those of the measurement's targets (docs/testing.md)]",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Creations a second, where they are paced.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each controller, in turns."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=results.FOLDER / "operator.json",
    show_default=True,
    help="File for each run's figures, as JSON.",
)
def main(measurements: Sequence[str], sizes: Sequence[int], rate: float, rounds: int, output: Path) -> None:
    """Measure the operator beside R: bursts, paced creations, edits during a burst, restarts, rest."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no controller and no namespace is left
    cluster = open_cluster()
    runs: list[dict[str, object]] = []
    for measurement, services, title in list_turns(measurements, sizes, rate):
        records: list[Record] = []
        for number, program in product(range(rounds), PROGRAMS[measurement]):
            click.echo(f"{title}: {program.name}, round {number + 1} of {rounds}", err=True)
            records.append(asyncio.run(measure(measurement, program, cluster, services, rate)))
            runs.append({"measurement": measurement, **asdict(records[-1])})
            results.write(output, runs)  # after each run: a later one may fail
        Console().print(draw_table(title, records))


if __name__ == "__main__":
    main()
