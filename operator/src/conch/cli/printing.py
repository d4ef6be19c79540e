"""Prints the value of a command: as text for a terminal or a pipe, or as JSON or YAML."""

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
    **dict.fromkeys(("True", "Ready", "Passed", "stable", "create"), "green"),
    **dict.fromkeys(("False", "Failed", "delete"), "red"),
    **dict.fromkeys(("Unknown", "Paused", "Progressing", "Inconclusive", "candidate", "change"), "yellow"),
}


@dataclass(frozen=True)
class Table:
    """A table: headers, and rows of cells."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Text = Sequence[str | Table]
"""Text for a user: sentences and tables."""


def print_value(output: Format, value: Mapping[str, Any], text: Text) -> None:
    """Print a value in the requested format."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
    elif output == "yaml":
        click.echo(dump_yaml(value), nl=False)
    elif (console := Console(highlight=False)).is_terminal:
        _print_on_terminal(console, text)
    else:
        click.echo(format_plain(text), nl=False)


def format_plain(text: Text) -> str:
    """Return a text with plain columns, for a pipe.

    >>> print(format_plain([Table(("NAME", "SHARE"), (("magika", "5 %"), ("yolo", "95 %")))]), end="")
    NAME     SHARE
    magika   5 %
    yolo     95 %
    """
    return "".join(
        f"{line}\n" for part in text for line in (_format_columns(part) if isinstance(part, Table) else [part])
    )


def format_age(seconds: float) -> str:
    """Return a duration of seconds as kubectl writes it, in its largest unit.

    >>> [format_age(moment) for moment in (5, 119, 3600, 90_000)]
    ['5s', '1m', '1h', '1d']
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def shorten_digest(digest: str) -> str:
    """Return the first 12 digits of a digest.

    >>> shorten_digest("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return digest.removeprefix("sha256:")[:12]


def _format_columns(table: Table) -> list[str]:
    rows = [table.headers, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headers))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _print_on_terminal(console: Console, text: Text) -> None:
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
