"""What all workers of a test run share: made by the first worker that needs it, and recorded for the others."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from typing import TypeVar

from tests.support.schedule import run_folder
from tests.support.wait import record_wait

T = TypeVar("T")


def run_once(name: str, make: Callable[[], T]) -> T:
    """Return what `make` returned in the first worker of this run that called it; the others wait for it.

    Args:
        name: the name of the record.
        make: called once in a run, and again if it raised. Its value must be plain JSON.
    """
    record = run_folder() / f"{name}.json"
    with record.with_suffix(".lock").open("w") as lock, record_wait(f"{name} is there"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            made = make()
            record.write_text(json.dumps(made))
            return made
        found: T = json.loads(record.read_text())
        return found
