"""Blocking functions in threads, outside the event loop. A cancelled task ends only after its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run a function in a thread and return its result.

    A cancellation waits for the thread, so that no late write changes the files of a successor.

    Args:
        function: The blocking function.
        *arguments: Its positional arguments.
        **options: Its keyword arguments.
    """
    call = partial(copy_context().run, partial(function, *arguments, **options))
    thread = asyncio.get_running_loop().run_in_executor(None, call)  # asyncio.to_thread would take a task for each call
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
