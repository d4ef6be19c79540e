"""A write that meets another one is repeated over what is there now, a few times and for conflicts alone."""

import asyncio

import pytest

from conch.write import CallError
from conch.write.conflicts import retry_on_conflict


class Object:
    """An object whose version others change while `writes_of_others` are left."""

    def __init__(self, writes_of_others: int = 0, code: int = 409) -> None:
        self.version = 1
        self.reads = 0
        self._writes_of_others, self._code = writes_of_others, code

    async def read(self, _: CallError) -> int:
        self.reads += 1
        return self.version

    async def write(self, seen: int) -> str:
        if self._writes_of_others:
            self._writes_of_others -= 1
            self.version += 1
        if seen != self.version:
            raise CallError(self._code, "Conflict", f"version {seen} is not {self.version}")
        return f"written over {seen}"


def test_a_write_without_a_conflict_reads_nothing() -> None:
    there = Object()
    assert asyncio.run(retry_on_conflict(there.write, there.read, 1)) == "written over 1"
    assert there.reads == 0


def test_a_conflict_is_repeated_over_what_is_there_now() -> None:
    there = Object(writes_of_others=3)
    assert asyncio.run(retry_on_conflict(there.write, there.read, 1)) == "written over 4"
    assert there.reads == 3


def test_the_last_conflict_is_raised() -> None:
    there = Object(writes_of_others=9)
    with pytest.raises(CallError, match="version 2 is not 3"):
        asyncio.run(retry_on_conflict(there.write, there.read, 1, attempts=2))
    assert there.reads == 1


def test_another_error_is_raised_at_once_unless_it_is_named_a_conflict() -> None:
    there = Object(writes_of_others=1, code=404)
    with pytest.raises(CallError, match="version 1 is not 2"):
        asyncio.run(retry_on_conflict(there.write, there.read, 1))
    assert asyncio.run(retry_on_conflict(there.write, there.read, 1, codes=(404,))) == "written over 2"


def test_a_read_that_raises_the_conflict_ends_the_tries() -> None:
    async def refuse(conflict: CallError) -> int:
        raise conflict

    with pytest.raises(CallError, match="version 1 is not 2"):
        asyncio.run(retry_on_conflict(Object(writes_of_others=1).write, refuse, 1))
