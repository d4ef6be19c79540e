"""How a process ends: by SIGTERM or SIGINT, in peace."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return the result of `work`. If the caller is cancelled, cancel `work` only after so many seconds.

    Raises:
        asyncio.CancelledError: the caller was cancelled; `work` has ended.
        Exception: what `work` raised.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=seconds)
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
