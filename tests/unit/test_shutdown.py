"""What a process that ends does with the work that has begun."""

from __future__ import annotations

import asyncio

import pytest

from conch.shutdown import finish


async def test_work_that_has_begun_is_finished_by_a_caller_that_is_cancelled() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(finish(work(), seconds=30))
    await begun.wait()
    caller.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_work_that_does_not_end_is_cancelled() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    caller = asyncio.create_task(finish(work(), seconds=0.01))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert cancelled.is_set()


async def test_the_result_and_the_error_of_the_work_are_the_callers() -> None:
    async def result() -> int:
        return 7

    async def error() -> int:
        raise ValueError("no such thing")

    assert await finish(result(), seconds=1) == 7
    with pytest.raises(ValueError, match="no such thing"):
        await finish(error(), seconds=1)
