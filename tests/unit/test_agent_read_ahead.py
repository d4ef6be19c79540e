"""Blocks that are read ahead of their use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from conch_agent.read_ahead import BATCH, ReadAhead, read_ahead


async def _yield_blocks(*blocks: bytes) -> AsyncGenerator[bytes, None]:
    for block in blocks:
        yield block


async def test_blocks_come_in_order_and_then_none() -> None:
    async with read_ahead(_yield_blocks(b"a", b"b", b"c")) as ahead:
        assert await ahead.take() == [b"a", b"b", b"c"]
        assert await ahead.take() == []
        assert await ahead.take() == []


async def test_many_bytes_are_taken_in_batches() -> None:
    block = bytes(BATCH // 2)
    async with read_ahead(_yield_blocks(*[block] * 9)) as ahead:
        sizes = []
        while blocks := await ahead.take():
            sizes.append(len(blocks))
    assert sum(sizes) == 9
    assert max(sizes) <= 4  # two batches may wait


async def test_what_has_come_is_not_kept_back_by_what_has_not() -> None:
    gate = asyncio.Event()

    async def wait_in_the_middle() -> AsyncGenerator[bytes, None]:
        yield b"before"
        await gate.wait()
        yield b"after"

    async with read_ahead(wait_in_the_middle()) as ahead:
        assert await ahead.take() == [b"before"]
        gate.set()
        assert await ahead.take() == [b"after"]
        assert await ahead.take() == []


async def test_an_error_comes_after_the_blocks_before_it() -> None:
    async def fail() -> AsyncGenerator[bytes, None]:
        yield b"before"
        raise ValueError("broken")

    async with read_ahead(fail()) as ahead:
        assert await ahead.take() == [b"before"]
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await ahead.take()


async def test_the_stream_waits_while_enough_bytes_are_read() -> None:
    started: list[int] = []
    has_two = asyncio.Event()

    async def count() -> AsyncGenerator[bytes, None]:
        for number in range(10):
            started.append(number)
            if number == 1:
                has_two.set()
            yield b"12345678"

    ahead = ReadAhead(count(), 16)
    await has_two.wait()
    for _ in range(100):  # turns of the event loop, in which the next block could be read
        await asyncio.sleep(0)
    assert started == [0, 1]
    assert len(await ahead.take()) == 2
    await ahead.close()


async def test_a_close_ends_the_stream() -> None:
    closed: list[bool] = []

    async def never_ends() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"1"
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async with aclosing(never_ends()) as stream, read_ahead(stream) as ahead:
        assert await ahead.take()
    assert closed == [True]
