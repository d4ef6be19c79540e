"""The work queue: one worker a key, nothing lost, namespaces take turns."""

import asyncio

import pytest

from conch.api.kinds import ServiceKey
from conch.queue import BACKOFF_JITTER, BACKOFF_LIMIT, REST_SECONDS, Cause, WorkQueue

A, B, C = (ServiceKey("one", name) for name in "abc")
OTHER = ServiceKey("two", "x")


async def take(queue: WorkQueue) -> ServiceKey:
    return await asyncio.wait_for(queue.get(), 1)


async def test_a_key_added_twice_is_worked_on_once() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add(A)
    assert await take(queue) == A
    assert len(queue) == 0


async def test_a_key_added_while_worked_on_is_worked_on_once_more_afterwards() -> None:
    queue = WorkQueue()
    queue.add(A)
    await take(queue)
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0, "no second worker gets it meanwhile"
    queue.done(A)
    assert await take(queue) == A
    queue.done(A)
    assert queue.idle


async def test_a_key_that_was_worked_on_rests_before_its_next_turn() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.done(await take(queue))
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert len(queue) == 1, "only B, which was not worked on, has its turn now"
    assert not queue.idle
    assert [await take(queue) for _ in range(2)] == [B, A]
    assert len(queue) == 0, "the additions during the rest are one turn"


async def test_a_closed_queue_brings_no_key_after_its_rest() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.done(await take(queue))
    queue.add(A)
    queue.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 2 * REST_SECONDS)


async def test_a_closed_queue_brings_no_key_that_was_worked_on_when_it_was_closed() -> None:
    queue = WorkQueue()
    queue.add(A)
    key = await take(queue)
    queue.add(A)
    queue.close()
    queue.done(key)
    queue.add_after(B, 0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 2 * REST_SECONDS)


@pytest.mark.parametrize("adds_first", [True, False], ids=["before the retry", "after the retry"])
async def test_no_event_and_no_step_shortens_the_wait_that_a_server_has_set(*, adds_first: bool) -> None:
    queue = WorkQueue()
    seconds = 5 * REST_SECONDS
    queue.add(A)
    key = await take(queue)
    due = asyncio.get_running_loop().time() + seconds
    if adds_first:
        queue.add(A)
    queue.retry(A, at_least=seconds)
    queue.add_after(A, 0.0)  # the next step of a rollout is due
    queue.done(key)
    queue.add(A, Cause.EDIT)
    queue.add(B)
    assert await take(queue) == B, "others do not wait"
    assert await take(queue) == A
    assert asyncio.get_running_loop().time() >= due


async def test_an_event_shortens_a_backoff_that_no_server_has_set() -> None:
    queue = WorkQueue()
    queue.add(A)
    key = await take(queue)
    for _ in range(20):
        queue.retry(A)
    queue.done(key)
    queue.add(A)
    assert await take(queue) == A


async def test_namespaces_take_turns() -> None:
    queue = WorkQueue()
    for key in (A, B, C, OTHER):
        queue.add(key)
    order = [await take(queue) for _ in range(4)]
    assert order == [A, OTHER, B, C]


async def test_edits_creations_and_all_else_of_a_namespace_take_turns() -> None:
    queue = WorkQueue()
    for key in (A, B, C):
        queue.add(key)
    for name, cause in (("m", Cause.CREATION), ("n", Cause.CREATION), ("x", Cause.EDIT), ("y", Cause.EDIT)):
        queue.add(ServiceKey("one", name), cause)
    assert [(await take(queue)).name for _ in range(7)] == ["x", "m", "y", "n", "a", "b", "c"]


async def test_creations_have_four_of_five_turns_without_edits() -> None:
    queue = WorkQueue()
    for key in (A, B):
        queue.add(key)
    for number in range(6):
        queue.add(ServiceKey("one", str(number)), Cause.CREATION)
    assert "".join([(await take(queue)).name for _ in range(8)]) == "0123a45b"


async def test_a_queued_key_that_is_edited_moves_up_and_is_worked_on_once() -> None:
    queue = WorkQueue()
    for key in (A, B, C):
        queue.add(key)
    queue.add(C, Cause.EDIT)
    queue.add(C)
    assert len(queue) == 3
    assert [await take(queue) for _ in range(3)] == [C, A, B]
    assert len(queue) == 0


async def test_an_edit_during_the_rest_of_a_key_moves_it_up_afterwards() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.done(await take(queue))
    queue.add(A, Cause.EDIT)
    for key in (A, B, C):
        queue.add(key)
    async with asyncio.timeout(10 * REST_SECONDS):
        while len(queue) < 3:  # noqa: ASYNC110  the queue has no event for the end of a rest
            await asyncio.sleep(0.01)
    assert await take(queue) == A


async def test_workers_that_wait_are_woken_one_a_key() -> None:
    queue = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add(A)
    queue.add(B)
    assert {await asyncio.wait_for(worker, 1) for worker in workers} == {A, B}


async def test_a_cancelled_worker_passes_its_turn_on() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert await asyncio.wait_for(second, 1) == A


async def test_a_delayed_key_comes_in_time_and_an_event_brings_it_forward() -> None:
    queue = WorkQueue()
    queue.add_after(A, 30)
    queue.add_after(A, 0.01)
    assert await take(queue) == A, "the sooner plan holds"
    queue.done(A)
    queue.add_after(B, 30)
    queue.add(B)
    assert await take(queue) == B


async def test_a_later_plan_does_not_replace_a_sooner_one() -> None:
    queue = WorkQueue()
    queue.add_after(A, 0.01)
    queue.add_after(A, 30)
    assert await take(queue) == A


async def test_backoff_grows_is_bounded_and_is_forgotten() -> None:
    queue = WorkQueue(seed=1)
    delays = [queue.retry(A) for _ in range(20)]
    queue.close()
    assert delays[0] < 0.3
    assert delays[3] > delays[0]
    assert max(delays) <= BACKOFF_LIMIT * (1 + BACKOFF_JITTER)
    queue.forget(A)
    assert queue.retry(A) < 0.3
    assert queue.retry(B, at_least=7) == 7
    queue.close()


async def test_a_storm_of_events_loses_no_key_and_gives_no_key_two_workers() -> None:
    queue = WorkQueue(seed=7)
    keys = [ServiceKey(f"n{i % 3}", f"s{i}") for i in range(30)]
    added = dict.fromkeys(keys, 0)
    seen = dict.fromkeys(keys, 0)
    active: set[ServiceKey] = set()

    async def worker() -> None:
        while True:
            key = await queue.get()
            assert key not in active
            active.add(key)
            seen[key] = added[key]
            await asyncio.sleep(0)
            active.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(5)]
    for turn in range(2000):
        key = keys[turn * 7 % 30]
        added[key] += 1
        queue.add(key)
        if turn % 5 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not queue.idle:  # noqa: ASYNC110  the queue has no event for being idle
            await asyncio.sleep(0)
    assert seen == added, "each key was taken after its last addition"
    for task in workers:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
