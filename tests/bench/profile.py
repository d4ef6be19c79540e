"""What the operator's processor time goes to in a burst: `python -m tests.bench.profile --services 200`.

`--output` keeps the figures as JSON, and `--beside` draws those of an earlier run, of another version, beside them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import click
from matplotlib.figure import Figure

from tests.bench import burst
from tests.bench.controllers import CONCH, Program
from tests.bench.sampler import SECONDS
from tests.bench.stage import open_cluster

# Parts by what the file's path has. The innermost frame that fits counts: what a library does for a part is the
# library's, and what the standard library does is its caller's.
PARTS: Final[Mapping[str, str]] = {
    "asyncio/sslproto": "TLS, sockets",
    "/ssl.py": "TLS, sockets",
    "/asyncio/": "event loop",
    "/selectors.py": "event loop",
    "/json/": "JSON",
    "write/errors.py:read_object": "JSON",
    "observe/compare.py:fingerprint": "JSON",
    "/aiohttp/web": "metrics and probes",
    "/prometheus_client/": "metrics and probes",
    "/aiohttp/": "HTTP client",
    "/yarl/": "HTTP client",
    "/multidict/": "HTTP client",
    "/kubernetes_asyncio/": "HTTP client",
    "/pydantic": "types (pydantic)",
    "/conch/observe/store.py": "cache: pack, unpack",
    "/conch/observe/cache_fields.py": "cache: pack, unpack",
    "/conch/observe/": "observe",
    "/conch/decide/": "decide",
    "/conch/traffic/": "decide",
    "/conch/desire/": "desire, plan",
    "/conch/plan/": "desire, plan",
    "/conch/api/": "types of the API",
    "/conch/write/": "write",
    "/conch/events/": "events",
    "/conch/signals/": "polls",
    "/conch/": "queue, reconcile, rest",
}


def classify(stack: str) -> str:
    """Return the part of a stack, by the innermost frame that one has.

    >>> classify("/lib/asyncio/events.py:_run;/x/conch/decide/track.py:split;/lib/copy.py:copy")
    'decide'
    """
    for frame in reversed(stack.split(";")):
        for path, part in PARTS.items():
            if path in frame:
                return part
    return "rest"


def add_up(lines: Iterable[str], services: int) -> dict[str, float]:
    """Return the processor time of each part in ms a service, the most first.

    >>> add_up(["/conch/decide/track.py:split 3", "/x/aiohttp/client.py:get;/x/ssl.py:read 1"], 2)
    {'decide': 6.0, 'TLS, sockets': 2.0}
    """
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        found[classify(stack)] += int(count)
    return {part: round(1000 * SECONDS * count / services, 2) for part, count in found.most_common()}


def draw(rows: Mapping[str, Mapping[str, float]], file: Path, label: str, unit: str) -> None:
    """Draw the parts of each run side by side, also those that only one of them has.

    Args:
        rows: the value of each part, by run.
        file: for the picture.
        label: of the axis.
        unit: of the values.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    parts = list(dict.fromkeys(part for found in rows.values() for part in found))[::-1]
    height = 0.8 / len(rows)
    for index, (name, found) in enumerate(rows.items()):
        places = [place + height * (len(rows) - 1 - index) for place in range(len(parts))]
        total = sum(found.values())
        axes.barh(places, [found.get(part, 0) for part in parts], height, label=f"{name}: {total:.0f} {unit}")
    axes.set_yticks([place + height * (len(rows) - 1) / 2 for place in range(len(parts))], parts)
    axes.set_xlabel(label)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=110)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--services", type=click.IntRange(1), default=200, show_default=True, help="How many are created.")
@click.option("--name", default="now", show_default=True, help="What the picture calls this run.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File for the figures, as JSON.")
@click.option("--beside", type=click.Path(exists=True, path_type=Path), help="Figures of another run, drawn first.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="File for the picture.")
def main(services: int, name: str, output: Path | None, beside: Path | None, picture: Path | None) -> None:
    """Show what the operator's processor time goes to in a burst of new services."""
    cluster = open_cluster()
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        command = (sys.executable, "-m", "tests.bench.sampler", str(stacks))
        program = Program(CONCH.name, command, CONCH.ready_port, CONCH.ready_path)
        asyncio.run(burst.measure(program, cluster, services))
        found = add_up(stacks.read_text().splitlines(), services)
    for part, milliseconds in found.items():
        click.echo(f"{milliseconds:6.2f} ms  {part}")
    click.echo(f"{sum(found.values()):6.2f} ms a service")
    rows = {**(json.loads(beside.read_text()) if beside else {}), name: found}
    if output:
        output.write_text(json.dumps({name: found}, indent=2) + "\n")
    if picture:
        draw(rows, picture, "processor time of a service in a burst, ms", "ms")


if __name__ == "__main__":
    main()
