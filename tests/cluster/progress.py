"""Progress of the tool's steps: a live row each on a terminal, plain lines everywhere else. Steps may overlap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

console = Console(stderr=True, highlight=False, soft_wrap=True)
_LINE_INTERVAL = 30.0
"""Seconds between two lines of one long step, where there is no terminal."""


def print_line(message: str) -> None:
    """Print one line about what is being done."""
    console.print(escape(message))


class Step:
    """One running step, whose units are counted: `show` receives its text whenever it changes."""

    def __init__(self, message: str, show: Callable[[str], None]) -> None:
        self._message, self._show = message, show
        self._start = time.monotonic()
        self._done = self._total = 0
        self._unit = ""

    def expect(self, total: int, unit: str) -> None:
        """Set how many units there are, and what they are called."""
        self._total, self._unit = total, unit
        self._show(self._text())

    def advance(self) -> None:
        """Count one more unit as done."""
        self._done = min(self._done + 1, self._total)
        self._show(self._text())

    def _text(self) -> str:
        """Return the message with what is done and, from a tenth on, the time that remains at the present rate."""
        text = f"{self._message}: {self._done} of {self._total} {self._unit}"
        if self._done * 10 < self._total:
            return text
        seconds = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        return f"{text}, about {seconds:.0f} s left"


class _Rows:
    """The live rows at the bottom of a terminal, one a running step."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._lock = threading.Lock()

    def add(self, message: str) -> TaskID:
        """Show a row; the first one starts the display."""
        with self._lock:
            self._progress.start()
            return self._progress.add_task(escape(message))

    def update(self, row: TaskID, text: str) -> None:
        """Change a row's text."""
        self._progress.update(row, description=escape(text))

    def remove(self, row: TaskID) -> None:
        """Remove a row; the last one ends the display."""
        with self._lock:
            self._progress.remove_task(row)
            if not self._progress.tasks:
                self._progress.stop()


_rows = _Rows()


@contextmanager
def step(message: str) -> Iterator[Step]:
    """Announce a step, and print how long it took once it is done."""
    start = time.monotonic()
    with _row(message) if console.is_terminal else _lines(message) as show:
        yield Step(message, show)
    console.print(f"[green]ok[/]  {escape(message)} [dim]({time.monotonic() - start:.1f} s)[/]")


@contextmanager
def _row(message: str) -> Iterator[Callable[[str], None]]:
    row = _rows.add(message)
    try:
        yield lambda text: _rows.update(row, text)
    finally:
        _rows.remove(row)


@contextmanager
def _lines(message: str) -> Iterator[Callable[[str], None]]:
    console.print(f"... {escape(message)}")
    printed = time.monotonic()

    def show(text: str) -> None:
        nonlocal printed
        if time.monotonic() - printed > _LINE_INTERVAL:
            printed = time.monotonic()
            console.print(f"... {escape(text)}")

    yield show
