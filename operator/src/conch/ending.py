"""How a process ends: by SIGTERM or SIGINT, in peace."""

import asyncio
import signal
from collections.abc import Callable


def end_by_signal() -> Callable[[], None]:
    """Cancel the task that calls this when the process is told to end; return what says so again.

    Kopf takes both signals for itself when it starts, and knows nothing of what else has to end.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("no task calls this")

    def say() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)

    say()
    return say
