"""What a poller does for a service: it returns known values at once, polls in the background, and forgets."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from conch.api.kinds import ServiceKey
from conch.signals.limiter import FairLimiter
from conch.signals.poller import Poller

ONE, OTHER = ServiceKey("demo", "one"), ServiceKey("lab", "other")
LONG = 3600.0  # seconds
DEADLINE = 20  # seconds
A = {"a": "http://a"}


class Outside:
    """What is polled: it answers with `value`, as soon as its gate is open."""

    def __init__(self) -> None:
        self.value: int | None = 1
        self.error: BaseException | None = None
        self.polls: list[tuple[ServiceKey, str, int | None]] = []
        self.ends: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.enqueued: list[ServiceKey] = []

    def poller(self, **options: object) -> Poller[str, str, int]:
        defaults = {"poll": self.poll, "period": lambda _: LONG}
        return Poller(self.enqueued.append, limiter=FairLimiter(4), **(defaults | options))  # type: ignore[arg-type]

    async def poll(self, key: ServiceKey, target: str, last: int | None) -> int | None:
        self.polls.append((key, target, last))
        await self.gate.wait()
        self.ends.append(asyncio.get_running_loop().time())
        if self.error is not None:
            raise self.error
        return self.value


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < deadline
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Let all tasks run as far as they can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_returns_at_once_and_a_new_value_enqueues_the_service() -> None:
    outside = Outside()
    poller = outside.poller()
    assert poller.request(ONE, A) == {}
    await settle()
    assert outside.polls == [(ONE, "http://a", None)]
    assert outside.enqueued == [ONE]
    assert poller.request(ONE, A) == {"a": 1}
    assert poller.request(OTHER, A) == {}, "a service has values of its own"
    poller.close()


@pytest.mark.parametrize(("value", "known", "enqueued"), [(1, 1, 1), (None, 1, 1), (2, 2, 2)])
async def test_only_another_value_wakes_a_service_and_the_last_value_stays_without_an_answer(
    value: int | None, known: int, enqueued: int
) -> None:
    outside = Outside()
    poller = outside.poller(period=lambda _: 0.0)
    poller.request(ONE, A)
    await settle()
    outside.value = value
    poller.request(ONE, A)
    await settle()
    assert outside.polls[1:] == [(ONE, "http://a", 1)]
    assert len(outside.enqueued) == enqueued
    assert poller.request(ONE, A) == {"a": known}
    poller.close()


async def test_the_owner_of_the_values_decides_what_is_news() -> None:
    outside = Outside()
    poller = outside.poller(is_news=lambda last, value: value > (last or 0) + 1)
    poller.request(ONE, A)
    await settle()
    assert outside.enqueued == []
    assert poller.request(ONE, A) == {"a": 1}
    poller.close()


async def test_a_target_has_one_poll_in_flight_and_rests_afterwards() -> None:
    outside = Outside()
    outside.gate.clear()
    poller = outside.poller()
    for _ in range(3):
        poller.request(ONE, A)
        await settle()
    assert len(outside.polls) == 1
    outside.gate.set()
    await settle()
    poller.request(ONE, A)
    await settle()
    assert len(outside.polls) == 1, "the period is not over, and the request starts no poll"
    poller.request(ONE, {**A, "b": "http://b"})
    await settle()
    assert [target for _, target, _ in outside.polls] == ["http://a", "http://b"], "each target has its own period"
    poller.close()


async def test_a_request_while_the_target_rests_starts_no_poll_later_either() -> None:
    outside = Outside()
    poller = outside.poller(period=lambda _: 0.05)
    poller.request(ONE, A)
    await settle()
    poller.request(ONE, A)
    await asyncio.sleep(0.1)
    assert len(outside.polls) == 1
    poller.request(ONE, A)
    await settle()
    assert len(outside.polls) == 2, "a request after the period starts one"
    poller.close()


async def test_a_poll_at_the_end_of_the_period_has_the_target_of_that_time() -> None:
    outside = Outside()
    poller = outside.poller(period=lambda _: 0.05, lease=LONG)
    for address in ("http://a", "http://b", "http://c"):
        poller.request(ONE, {"a": address})
        await settle()
    await until(lambda: len(outside.ends) == 2)
    assert [target for _, target, _ in outside.polls] == ["http://a", "http://c"]
    assert outside.ends[1] - outside.ends[0] >= 0.05
    poller.close()


async def test_an_endless_lease_keeps_a_target_polled_until_its_service_requests_it_no_more() -> None:
    outside = Outside()
    poller = outside.poller(period=lambda _: 0.001, lease=math.inf)
    poller.request(ONE, A)
    await until(lambda: len(outside.polls) > 5)
    assert outside.enqueued == [ONE], "the same value wakes no service"
    outside.value = 2
    await until(lambda: len(outside.enqueued) == 2)
    assert poller.request(ONE, {}) == {}
    polls = len(outside.polls)
    await asyncio.sleep(0.01)
    assert len(outside.polls) == polls


async def test_a_request_with_a_shorter_period_ends_a_rest() -> None:
    outside = Outside()
    seconds = {"http://a": LONG, "http://b": 0.001}
    poller = outside.poller(period=lambda target: seconds[target], lease=math.inf)
    poller.request(ONE, {"a": "http://a"})
    await settle()
    poller.request(ONE, {"a": "http://b"})
    await until(lambda: len(outside.polls) == 2)
    poller.request(ONE, {"a": "http://a"})
    poller.close()


async def test_a_target_that_is_no_longer_requested_is_forgotten_with_its_poll() -> None:
    outside = Outside()
    poller = outside.poller()
    poller.request(ONE, {**A, "b": "http://b"})
    await settle()
    assert poller.request(ONE, A) == {"a": 1}
    outside.gate.clear()
    assert poller.request(ONE, {"b": "http://b"}) == {}
    await settle()
    assert len(outside.polls) == 3, "a target that comes back is polled at once"
    assert poller.request(ONE, {}) == {}
    outside.value = 2
    outside.gate.set()
    await settle()
    assert len(outside.ends) == 2, "the poll is cancelled"
    assert outside.enqueued == [ONE, ONE]


async def test_slow_targets_of_a_namespace_do_not_delay_another_namespace() -> None:
    outside = Outside()
    outside.gate.clear()
    poller = outside.poller()
    poller.request(ONE, {str(number): str(number) for number in range(9)})
    await settle()
    poller.request(OTHER, A)
    await settle()
    assert [key for key, _, _ in outside.polls] == [ONE, OTHER], "a namespace has a quarter of four polls"
    poller.close()


async def test_a_lease_keeps_a_target_polled_and_wakes_its_service_before_it_expires() -> None:
    outside = Outside()
    poller = outside.poller(period=lambda _: 0.001, lease=0.5)
    poller.request(ONE, A)
    await until(lambda: len(outside.polls) > 3)
    began = asyncio.get_running_loop().time()
    assert poller.request(ONE, A) == {"a": 1}, "a request renews the lease"
    outside.enqueued.clear()
    await until(lambda: outside.enqueued)
    assert asyncio.get_running_loop().time() - began > 0.25, "in its second half"
    await until(lambda: not poller._entries)
    assert asyncio.get_running_loop().time() - began > 0.5
    assert poller.request(ONE, A) == {}, "what is not requested during a lease is forgotten"
    poller.close()


async def test_a_poll_that_raises_is_logged_and_leaves_the_target_to_the_next_request() -> None:
    outside = Outside()
    outside.error = RuntimeError("a mistake in a poll")
    poller = outside.poller(period=lambda _: 0.0)
    with capture_logs() as logs:
        poller.request(ONE, A)
        await settle()
    assert [(entry["event"], entry["service"]) for entry in logs] == [("poll failed", str(ONE))]
    outside.error = None
    assert poller.request(ONE, A) == {}
    await settle()
    assert poller.request(ONE, A) == {"a": 1}
    poller.close()


@pytest.mark.parametrize("error", [RuntimeError("a mistake in a poll"), asyncio.CancelledError("of an awaited future")])
async def test_a_poll_that_raises_ends_no_lease(error: BaseException) -> None:
    outside = Outside()
    outside.error = error
    poller = outside.poller(period=lambda _: 0.001, lease=LONG)
    poller.request(ONE, A)
    await until(lambda: len(outside.polls) > 2)
    outside.error = None
    await until(lambda: outside.enqueued)
    assert poller.request(ONE, A) == {"a": 1}
    poller.close()


async def test_a_comparison_that_raises_is_logged_and_ends_no_lease() -> None:
    outside = Outside()
    compared: list[int] = []

    def is_news(_last: int | None, value: int) -> bool:
        compared.append(value)
        if len(compared) == 1:
            raise RuntimeError("a mistake in the comparison")
        return True

    poller = outside.poller(period=lambda _: 0.001, lease=LONG, is_news=is_news)
    with capture_logs() as logs:
        poller.request(ONE, A)
        await until(lambda: outside.enqueued)
    assert [entry["event"] for entry in logs] == ["poll failed"]
    poller.close()


@pytest.mark.parametrize("lease", [0.0, LONG, math.inf])
async def test_a_poll_that_ends_in_spite_of_its_cancellation_is_forgotten_all_the_same(lease: float) -> None:
    outside, ends = Outside(), asyncio.Event()

    async def poll(*arguments: object) -> int | None:
        with contextlib.suppress(asyncio.CancelledError):
            await outside.poll(*arguments)  # type: ignore[arg-type]
        ends.set()
        return 2

    outside.gate.clear()
    poller = outside.poller(poll=poll, period=lambda _: 0.001, lease=lease)
    poller.request(ONE, A)
    await settle()
    poller.request(ONE, {})
    poller.request(ONE, {"b": "http://b"})
    await asyncio.wait_for(ends.wait(), DEADLINE)
    await asyncio.sleep(0.01)
    assert [target for _, target, _ in outside.polls] == ["http://a", "http://b"]
    assert (outside.enqueued, list(poller._entries[ONE])) == ([], ["b"])
    poller.close()


async def test_a_poller_that_is_closed_polls_no_more_and_knows_nothing() -> None:
    outside = Outside()
    outside.gate.clear()
    poller = outside.poller()
    poller.request(ONE, A)
    poller.request(OTHER, A)
    await settle()
    poller.close()
    outside.gate.set()
    await settle()
    assert (outside.ends, outside.enqueued, poller._entries) == ([], [], {})
