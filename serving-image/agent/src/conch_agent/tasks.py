"""Concurrent coroutines whose first exception is raised itself, on all versions of Python in the images."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the coroutines until all have ended.

    The first exception cancels the others and is raised without a group: `asyncio.TaskGroup` raises a group, and Python
    before 3.11.4, which Debian bookworm and so the images have, wraps an exception raised inside `except*` into another
    group.

    Args:
        coroutines: The coroutines.
    """
    try:
        # In a task of its own: before Python 3.12.3 a group with a failed task leaves a cancellation request on the
        # waiting task, and a timeout around both then ends as a cancellation (python/cpython#116720).
        await asyncio.create_task(_run_group(coroutines))
    except BaseExceptionGroup as group:
        first = _find_first(group)
    else:
        return
    raise first


async def run_until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run the coroutines until one has ended, and cancel the others.

    Args:
        *coroutines: The coroutines.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_group(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


def _find_first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _find_first(first) if isinstance(first, BaseExceptionGroup) else first
