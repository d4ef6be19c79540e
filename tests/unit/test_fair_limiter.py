"""Whose turn it is to ask: namespaces take turns, and none has more than its share."""

from __future__ import annotations

import asyncio

import pytest

from conch.signals.limiter import FairLimiter

pytestmark = pytest.mark.asyncio


class Asker:
    """Questions of a namespace, each of which lasts until it is answered."""

    def __init__(self, limiter: FairLimiter, namespace: str) -> None:
        self.under_way: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._limiter, self._namespace = limiter, namespace
        self._answers: dict[int, asyncio.Event] = {}

    def ask(self, count: int) -> None:
        """Ask so many more questions."""
        for number in range(len(self.tasks), len(self.tasks) + count):
            self._answers[number] = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._ask(number)))

    def answer(self, number: int) -> None:
        """Answer a question."""
        self._answers[number].set()

    async def _ask(self, number: int) -> None:
        async with self._limiter.turn(self._namespace):
            self.under_way.append(number)
            try:
                await self._answers[number].wait()
            finally:
                self.under_way.remove(number)


async def settle() -> None:
    """Let all tasks go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_namespace_has_a_quarter_and_others_are_asked_at_once() -> None:
    limiter = FairLimiter(8)
    slow, other = Asker(limiter, "slow"), Asker(limiter, "other")
    slow.ask(50)
    await settle()
    other.ask(1)
    await settle()
    assert (slow.under_way, other.under_way) == ([0, 1], [0])
    slow.answer(1)
    await settle()
    assert slow.under_way == [0, 2], "in the order of arrival"


async def test_namespaces_take_turns_where_there_is_not_enough_for_all() -> None:
    limiter = FairLimiter(4)
    askers = [Asker(limiter, name) for name in "abcdef"]
    for asker in askers:
        asker.ask(3)
    await settle()
    assert [len(asker.under_way) for asker in askers] == [1, 1, 1, 1, 0, 0]
    askers[0].answer(0)
    await settle()
    assert [len(asker.under_way) for asker in askers] == [0, 1, 1, 1, 1, 0], "those that had none come first"


@pytest.mark.parametrize("waits", [True, False], ids=["that waits", "under way"])
async def test_a_question_that_is_given_up_makes_way(waits: bool) -> None:
    limiter = FairLimiter(1)
    first, second = Asker(limiter, "a"), Asker(limiter, "b")
    first.ask(2)
    second.ask(1)
    await settle()
    first.tasks[1 if waits else 0].cancel()
    await settle()
    assert second.under_way == ([] if waits else [0])
    for number in range(2):
        first.answer(number)
    second.answer(0)
    await asyncio.gather(*first.tasks, *second.tasks, return_exceptions=True)
    first.ask(1)
    await settle()
    assert first.under_way == [2], "nothing is lost"


async def test_a_question_that_waits_is_given_up_together_with_one_that_is_under_way() -> None:
    limiter = FairLimiter(4)
    asker, other = Asker(limiter, "a"), Asker(limiter, "b")
    for _ in range(10):
        asker.ask(3)
        await settle()
        for task in asker.tasks:
            task.cancel()
        await settle()
    assert not asker.under_way
    other.ask(1)
    asker.ask(1)
    await settle()
    assert (len(asker.under_way), len(other.under_way)) == (1, 1), "no turn is lost"


async def test_a_question_that_is_given_up_in_the_moment_it_is_admitted_makes_way() -> None:
    limiter = FairLimiter(1)
    first, second = Asker(limiter, "a"), Asker(limiter, "b")
    first.ask(1)
    await settle()
    second.ask(1)
    await settle()
    first.answer(0)
    await asyncio.sleep(0)
    second.tasks[0].cancel()
    await settle()
    first.ask(1)
    await settle()
    assert first.under_way == [1]
