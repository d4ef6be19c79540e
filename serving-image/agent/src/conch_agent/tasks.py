"""Coroutines that run at the same time and fail as one of them failed, on every Python that an image ships."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def run_all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the coroutines until all have ended.

    The first exception cancels the others and is raised itself, outside of any group: `asyncio.TaskGroup` raises a
    group, and an exception raised inside `except*` is wrapped into another group by Python before 3.11.4, which
    Debian bookworm and so the images have.
    """
    try:
        # In a task of its own: before Python 3.12.3 a group whose task fails leaves a request to cancel on the task
        # that waits for it, and a timeout around both then ends as a cancellation (python/cpython#116720).
        await asyncio.create_task(_run_group(works))
    except BaseExceptionGroup as several:
        first = _first(several)
    else:
        return
    raise first


async def run_until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run the coroutines until one has ended, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_group(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
