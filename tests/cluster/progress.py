"""What the tool says while it works: colours and timings on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line about what is being done."""
    console.print(escape(message))


@contextmanager
def step(message: str) -> Iterator[None]:
    """Announce a step, and say how long it took once it is done."""
    start = time.monotonic()
    if console.is_terminal:
        with console.status(escape(message)):
            yield
    else:
        console.print(f"... {escape(message)}")
        yield
    console.print(f"[green]ok[/]  {escape(message)} [dim]({time.monotonic() - start:.1f} s)[/]")
