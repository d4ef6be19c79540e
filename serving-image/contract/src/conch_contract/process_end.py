"""The end of a program that has used the client of object stores (obstore).

The client has threads of its own, which go on after its last answer. One that needs the interpreter while that is
finalized aborts the process: a push that was done, or a warm-up that had passed, ended with SIGABRT, one time in twelve
on busy processors. The client cannot end its threads (PyO3/pyo3-async-runtimes#40), so that the process ends before
the interpreter is finalized.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable


def end_before_finalization(program: Callable[[], None]) -> Callable[[], None]:
    """Return the program, which ends the process with the same exit status, after all that is registered with `atexit`.

    Args:
        program: The function of a console script.
    """

    @functools.wraps(program)
    def run() -> None:
        status = 1  # of an exception that is not handled

        def end() -> None:
            os._exit(status if _flush() else status or 1)

        atexit.register(end)
        try:
            program()
        except SystemExit as error:
            status = _read_status(error)
            raise
        status = 0

    return run


def _read_status(error: SystemExit) -> int:
    """Return the exit status, as the interpreter does: that of a text is 1."""
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _flush() -> bool:
    """Write what is buffered; return False if it cannot be written."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # no space, a pipe without a reader, or a closed file
        return False
    return True
