"""The demo's output: colours and a clock on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

_COLOURS = {
    "Ready": "green",
    "True": "green",
    "Normal": "cyan",
    "False": "yellow",
    "Warning": "yellow",
    "Failed": "red",
}


class Reporter:
    """Prints the demo's lines; each has the seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the demo has run."""
        return time.monotonic() - self._began

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """Print a heading, and at the end how long the chapter took."""
        self._console.print(f"\n[bold]{escape(title)}[/]")
        began = time.monotonic()
        yield
        self._console.print(f"  [dim]({time.monotonic() - began:.1f} s)[/]")

    def line(self, subject: str, value: str, words: str = "") -> None:
        """Print one line: subject, value and reason."""
        colour = _COLOURS.get(value, "white")
        clock = f"[dim]{self.seconds:6.1f} s[/]"
        self._console.print(f"  {clock}  {escape(subject):<28} [{colour}]{escape(value):<9}[/] {escape(words)}")

    def text(self, text: str) -> None:
        """Print lines as they stand."""
        self._console.print(escape(text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(*head)
        for row in rows:
            table.add_row(*map(escape, row))
        self._console.print(table)

    def tree(self, root: str, branches: Mapping[str, Sequence[str]]) -> None:
        """Print what belongs to what."""
        tree = Tree(f"[bold]{escape(root)}[/]")
        for name, leaves in branches.items():
            branch = tree.add(escape(name))
            for leaf in leaves:
                branch.add(f"[dim]{escape(leaf)}[/]")
        self._console.print(tree)

    def print_failure(self, message: str) -> None:
        """Print the failure that ends the demo."""
        self._console.print(f"\n[red bold]failed[/] after {self.seconds:.1f} s: {escape(message)}")
