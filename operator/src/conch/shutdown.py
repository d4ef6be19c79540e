"""The end of a process: by a signal, or by an error with a message of one sentence."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

# The time that a reconcile in progress gets when the process ends. A status that it writes, with its events, gets as
# many seconds more: a cancellation between the two would lose the events.
END_SECONDS: Final = 5.0

T = TypeVar("T")
_log = structlog.get_logger("conch")


class RestartError(Exception):
    """The process has to end, and the kubelet restarts it. The message is the reason."""


def run(program: str, work: Coroutine[Any, Any, None], *expected: type[Exception]) -> None:
    """Run a process to its end.

    Args:
        program: its name, before the sentence that it exits with.
        work: its work.
        expected: errors that, like RestartError, end it with their message; others do so with a traceback.
    """
    kinds: tuple[type[Exception], ...] = (RestartError, *expected)
    try:
        asyncio.run(work)
    except kinds as error:
        sys.exit(_build_exit_message(program, error))
    except BaseExceptionGroup as group:
        known, others = group.split(kinds)
        if known is None or others is not None:
            raise
        sys.exit(_build_exit_message(program, _flatten(known)[0]))


def _build_exit_message(program: str, error: BaseException) -> str:
    return f"{program}: {error}" + ("; it starts again" if isinstance(error, RestartError) else "")


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions of a group and of the groups in it."""
    nested = (_flatten(one) if isinstance(one, BaseExceptionGroup) else [one] for one in group.exceptions)
    return [leaf for part in nested for leaf in part]


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
        task.cancel()
        [end] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(end, BaseException):
            _log.warning("not finished at the end of the process", error=repr(end))
        raise


def cancel_on_signal() -> None:
    """Cancel the calling task on SIGTERM or SIGINT."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("no task calls this")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
