"""What the local cluster uses while nothing happens in it: share of a core of each program.

Every story of e2e pays for it, so it is a figure of the suite's speed. Counted from the kernel's own times of
every process that belongs to the cluster: its components and everything below its pods' cgroup.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.cluster import Cluster
from tests.support.place import open_place

_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 60.0


def cpu_seconds(cluster: Cluster) -> dict[tuple[str, int], float]:
    """Return the seconds of processor time that each process of a cluster has used, by program and pid."""
    components = {identity.pid for identity in cluster.records.running().values()}
    used: dict[tuple[str, int], float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(folder.name)
            if pid in components or f"/{cluster.plan.cgroup}/" in (folder / "cgroup").read_text():
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                fields = rest.split()
                used[name, pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return used


def measure(cluster: Cluster, seconds: float) -> dict[str, float]:
    """Return the share of one core that each program uses over some seconds, the largest first."""
    before = cpu_seconds(cluster)
    start = time.monotonic()
    time.sleep(seconds)
    after = cpu_seconds(cluster)
    elapsed = time.monotonic() - start
    shares: dict[str, float] = {}
    for (name, pid), used in after.items():
        shares[name] = shares.get(name, 0.0) + (used - before.get((name, pid), 0.0)) / elapsed
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=60.0, show_default=True, help="How long to measure.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the shares to this file too.")
def main(seconds: float, file: Path | None) -> None:
    """Measure the local cluster at rest, with Conch installed and whatever services it has."""
    with open_place() as place:
        place.prepare()
        place.install()
        assert place.local is not None
        time.sleep(_SETTLE_SECONDS)
        shares = measure(place.local, seconds)
    table = Table("program", "share of a core")
    for name, share in shares.items():
        if share >= 0.001:
            table.add_row(name, f"{share:.1%}")
    table.add_row("all", f"{sum(shares.values()):.1%}")
    Console().print(table)
    if file is not None:
        file.write_text(json.dumps(shares, indent=1))


if __name__ == "__main__":
    main()
