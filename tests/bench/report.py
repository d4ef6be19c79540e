"""The targets with what was measured, in one table: `python -m tests.bench.report`.

A criterion that was not measured is shown as such, and never as met.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from tests.bench import results
from tests.bench.criteria import Criterion, Results
from tests.bench.targets import CRITERIA

HEADER: Final = ("", "what", "target", "Conch", "R", "KServe", "ratio", "")


class Verdict(StrEnum):
    """Whether a target is reached."""

    MET = "met"
    MISSED = "missed"
    NO_TARGET = "no target"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """A criterion, and what was measured for it."""

    target: str
    what: str
    goal: str
    measured: str
    reference: str
    peer: str
    ratio: str
    verdict: Verdict
    where: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table, as of `HEADER`."""
        verdict = f"{self.verdict} ({self.where})" if self.where else str(self.verdict)
        return (self.target, self.what, self.goal, self.measured, self.reference, self.peer, self.ratio, verdict)


def build_row(criterion: Criterion, figures: Results) -> Row:
    """Return the row of a criterion."""
    reading = criterion.read(figures)
    begin = (criterion.target, criterion.what, criterion.goal)
    if reading is None:
        return Row(*begin, "", "", "", "", Verdict.NOT_MEASURED, criterion.where)
    ratio = "" if reading.ratio is None else f"{reading.ratio:.2f}"
    verdicts = {True: Verdict.MET, False: Verdict.MISSED, None: Verdict.NO_TARGET}
    return Row(*begin, reading.measured, reading.reference, reading.peer, ratio, verdicts[reading.is_met], "")


def draw_markdown(rows: Iterable[Row]) -> str:
    """Return the table as Markdown."""
    lines = (HEADER, ("---",) * len(HEADER), *(row.cells for row in rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw_table(rows: Iterable[Row]) -> Table:
    """Return the table for a terminal."""
    table = Table(*HEADER)
    for row in rows:
        table.add_row(*row.cells)
    return table


def describe_parts(folder: Path) -> str:
    """Return which parts have figures, and when they were written, in local time."""
    files: Sequence[Path] = sorted(folder.glob("[!.]*.json"))
    moments = (time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime)) for file in files)
    parts = ", ".join(f"{file.stem} ({moment})" for file, moment in zip(files, moments, strict=True))
    return f"Figures of {folder}: {parts or 'none'}."


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=results.FOLDER)
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "markdown"]), default="table", show_default=True, help="Form."
)
def main(folder: Path, form: str) -> None:
    """Print the targets with the figures of FOLDER."""
    figures = results.read(folder)
    rows = [build_row(criterion, figures) for criterion in CRITERIA]
    if form == "markdown":
        click.echo(draw_markdown(rows))
    else:
        Console().print(draw_table(rows))
    click.echo(f"\n{describe_parts(folder)}")


if __name__ == "__main__":
    main()
