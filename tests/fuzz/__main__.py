"""Fuzzes every target for its share of the time, as many at once as there are processors, and prints what came of it.

`python -m tests.fuzz --minutes 60`. What a target found is kept in build/fuzz, and the next run goes on from there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import Target, targets

_STATS = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+)")
_SECONDS_OF_ONE = 20  # a text that takes longer is a bug
_BYTES = 64 * 1024
_MEBIBYTES = 2048


@dataclass(frozen=True)
class Result:
    """What came of fuzzing a target."""

    name: str
    texts: int  # that were tried
    places: int  # of the code that were reached
    failure: str  # the file with the text that made it fail; empty: none did


def fuzz(name: str, target: Target, folder: Path, seconds: int) -> Result:
    """Fuzz a target for some seconds."""
    corpus, found = folder / "corpus" / name, folder / f"{name}-"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "timeout": _SECONDS_OF_ONE,
        "max_len": _BYTES,
        "rss_limit_mb": _MEBIBYTES,
        "artifact_prefix": found,
        "print_final_stats": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz.one", name, *(f"-{key}={value}" for key, value in options.items())]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        ended = subprocess.run([*command, str(corpus)], stdout=out, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(errors="replace")
    stats = _STATS.findall(text)
    texts, places = (int(stats[-1][0]), int(stats[-1][1])) if stats else (0, 0)
    failure = re.search(r"Test unit written to (\S+)", text)
    return Result(name, texts, places, failure[1] if failure else "" if ended.returncode == 0 else str(log))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=60.0, show_default=True, help="Of all processors together.")
@click.option("--only", multiple=True, help="Fuzz this target alone; several times for several.")
@click.option("--folder", default="build/fuzz", show_default=True, type=click.Path(path_type=Path))
def main(minutes: float, only: tuple[str, ...], folder: Path) -> None:
    """Fuzz what parses text of others, and show what came of it."""
    chosen = {name: target for name, target in targets().items() if name in only or not only}
    if not chosen:
        raise click.UsageError(f"no target is named {', '.join(only)}")
    seconds = max(5, round(minutes * 60 / len(chosen)))
    console, table = Console(), Table("target", "texts", "places", "failed by")
    failures = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for result in pool.map(lambda item: fuzz(item[0], item[1], folder, seconds), chosen.items()):
            console.print(f"{result.name}: {result.failure or 'no failure'}", style="dim")
            table.add_row(result.name, f"{result.texts:,}", f"{result.places:,}", result.failure)
            failures += bool(result.failure)
    console.print(table)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
