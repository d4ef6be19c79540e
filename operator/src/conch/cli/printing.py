"""How a command's value reaches people and programs. Computes nothing.

Tables and colours are for a terminal; a pipe gets plain columns, `-o json|yaml` the value itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from conch.cli.options import Format
from conch.plain_yaml import dump_yaml

_GAP: Final = "   "
_COLOURS: Final = {
    **dict.fromkeys(("True", "Ready", "Passed", "serves", "create"), "green"),
    **dict.fromkeys(("False", "Failed", "delete"), "red"),
    **dict.fromkeys(("Unknown", "Paused", "Progressing", "Inconclusive", "candidate", "change"), "yellow"),
}


@dataclass(frozen=True)
class Table:
    """Headers and rows of words."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Text = Sequence[str | Table]
"""What a person reads: sentences and tables."""


def show(output: Format, value: Mapping[str, Any], text: Text) -> None:
    """Print a value in the form that was asked for."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
    elif output == "yaml":
        click.echo(dump_yaml(value), nl=False)
    elif (console := Console(highlight=False)).is_terminal:
        _on_terminal(console, text)
    else:
        click.echo(plain(text), nl=False)


def plain(text: Text) -> str:
    """Return what a pipe gets.

    >>> print(plain([Table(("NAME", "SHARE"), (("magika", "5 %"), ("yolo", "95 %")))]), end="")
    NAME     SHARE
    magika   5 %
    yolo     95 %
    """
    return "".join(f"{line}\n" for part in text for line in (_columns(part) if isinstance(part, Table) else [part]))


def age(seconds: float) -> str:
    """Return a span as kubectl writes it, in its largest unit.

    >>> [age(moment) for moment in (5, 119, 3600, 90_000)]
    ['5s', '1m', '1h', '1d']
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def short(digest: str) -> str:
    """Return the beginning of a digest, enough to tell it from others.

    >>> short("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return digest.removeprefix("sha256:")[:12]


def _columns(table: Table) -> list[str]:
    rows = [table.headers, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headers))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _on_terminal(console: Console, text: Text) -> None:
    for part in text:
        if isinstance(part, str):
            console.print(RichText(part))
            continue
        table = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
        for header in part.headers:
            table.add_column(header, overflow="fold")
        for row in part.rows:
            table.add_row(*(RichText(cell, style=_COLOURS.get(cell, "")) for cell in row))
        console.print(table)
