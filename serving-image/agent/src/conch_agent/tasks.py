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
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as several:
        first = _first(several)
    else:
        return
    raise first


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
