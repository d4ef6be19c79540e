"""The fair limiter: namespaces take turns, and none has more than its share."""

from __future__ import annotations

import asyncio

import pytest

from conch.signals.limiter import FairLimiter

pytestmark = pytest.mark.asyncio


class Client:
    """Requests of a namespace, each of which lasts until it is answered."""

    def __init__(self, limiter: FairLimiter, namespace: str) -> None:
        self.under_way: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._limiter, self._namespace = limiter, namespace
        self._answers: dict[int, asyncio.Event] = {}

    def send(self, count: int) -> None:
        """Send so many more requests."""
        for number in range(len(self.tasks), len(self.tasks) + count):
            self._answers[number] = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._send(number)))

    def answer(self, number: int) -> None:
        """Answer a request."""
        self._answers[number].set()

    async def _send(self, number: int) -> None:
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


async def test_one_namespace_has_a_quarter_and_requests_of_others_start_at_once() -> None:
    limiter = FairLimiter(8)
    slow, other = Client(limiter, "slow"), Client(limiter, "other")
    slow.send(50)
    await settle()
    other.send(1)
    await settle()
    assert (slow.under_way, other.under_way) == ([0, 1], [0])
    slow.answer(1)
    await settle()
    assert slow.under_way == [0, 2], "in the order of arrival"


async def test_namespaces_take_turns_where_there_is_not_enough_for_all() -> None:
    limiter = FairLimiter(4)
    clients = [Client(limiter, name) for name in "abcdef"]
    for client in clients:
        client.send(3)
    await settle()
    assert [len(client.under_way) for client in clients] == [1, 1, 1, 1, 0, 0]
    clients[0].answer(0)
    await settle()
    assert [len(client.under_way) for client in clients] == [0, 1, 1, 1, 1, 0], "those that had none come first"


@pytest.mark.parametrize("waits", [True, False], ids=["that waits", "under way"])
async def test_a_request_that_is_given_up_frees_its_turn(waits: bool) -> None:
    limiter = FairLimiter(1)
    first, second = Client(limiter, "a"), Client(limiter, "b")
    first.send(2)
    second.send(1)
    await settle()
    first.tasks[1 if waits else 0].cancel()
    await settle()
    assert second.under_way == ([] if waits else [0])
    for number in range(2):
        first.answer(number)
    second.answer(0)
    await asyncio.gather(*first.tasks, *second.tasks, return_exceptions=True)
    first.send(1)
    await settle()
    assert first.under_way == [2], "nothing is lost"


async def test_a_request_that_waits_is_given_up_together_with_one_that_is_under_way() -> None:
    limiter = FairLimiter(4)
    client, other = Client(limiter, "a"), Client(limiter, "b")
    for _ in range(10):
        client.send(3)
        await settle()
        for task in client.tasks:
            task.cancel()
        await settle()
    assert not client.under_way
    other.send(1)
    client.send(1)
    await settle()
    assert (len(client.under_way), len(other.under_way)) == (1, 1), "no turn is lost"


async def test_a_request_that_is_given_up_in_the_moment_it_is_admitted_frees_its_turn() -> None:
    limiter = FairLimiter(1)
    first, second = Client(limiter, "a"), Client(limiter, "b")
    first.send(1)
    await settle()
    second.send(1)
    await settle()
    first.answer(0)
    await asyncio.sleep(0)
    second.tasks[0].cancel()
    await settle()
    first.send(1)
    await settle()
    assert first.under_way == [1]
