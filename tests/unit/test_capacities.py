"""A service that waits gets the GPUs of the cluster: soon, never older than its request, and polling ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import pytest

from conch.api.kinds import ServiceKey
from conch.observe.capacity import Capacity, Node
from conch.signals import Capacities

ONE, OTHER = ServiceKey("demo", "one"), ServiceKey("demo", "other")
ELSEWHERE = ServiceKey("lab", "one")
WHOLE_TEST = 20  # seconds


def build_capacity(gpus: int) -> Capacity:
    return Capacity((Node("n1", allocatable={"nvidia.com/gpu": gpus}),))


class Cluster:
    """A cluster with so many GPUs; a read of it lasts while the gate is shut."""

    def __init__(self) -> None:
        self.gpus: int | None = 1  # None: the API server does not answer
        self.looks: list[frozenset[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.woken: asyncio.Queue[ServiceKey] = asyncio.Queue()

    async def look(self, namespaces: Iterable[str]) -> Mapping[str, Capacity]:
        found = {} if self.gpus is None else dict.fromkeys(namespaces, build_capacity(self.gpus))
        self.looks.append(frozenset(namespaces))
        self.begun.put_nowait(None)
        await self.gate.wait()
        return found


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def capacities(cluster: Cluster) -> AsyncIterator[Callable[[float], Capacities]]:
    made: list[Capacities] = []

    def make(period: float) -> Capacities:
        made.append(Capacities(cluster.woken.put_nowait, cluster.look, period))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def take_service(cluster: Cluster) -> ServiceKey:
    return await asyncio.wait_for(cluster.woken.get(), WHOLE_TEST)


async def wait_for_reads(cluster: Cluster, times: int) -> None:
    """Wait until so many more looks have begun."""
    for _ in range(times):
        await asyncio.wait_for(cluster.begun.get(), WHOLE_TEST)


async def test_a_service_that_requests_capacity_is_woken_when_there_is_an_answer(
    cluster: Cluster, capacities: Callable[[float], Capacities]
) -> None:
    found = capacities(3600)
    assert found.request(ONE, waits=True) is None
    assert await take_service(cluster) == ONE
    assert found.request(ONE, waits=True) == build_capacity(1)
    assert found.request(ELSEWHERE, waits=True) is None, "a newcomer need not wait for the next period"
    assert await take_service(cluster) == ELSEWHERE
    assert cluster.looks == [{"demo"}, {"demo", "lab"}]
    assert found.request(ELSEWHERE, waits=True) == build_capacity(1)


async def test_a_change_wakes_a_service_that_waits_and_an_equal_answer_wakes_none(
    cluster: Cluster, capacities: Callable[[float], Capacities]
) -> None:
    found = capacities(0.001)
    found.request(ONE, waits=True)
    await take_service(cluster)
    await wait_for_reads(cluster, 4)
    assert cluster.woken.empty()
    cluster.gpus = 2
    assert await take_service(cluster) == ONE
    assert found.request(ONE, waits=True) == build_capacity(2)


async def test_an_answer_is_never_older_than_its_request(
    cluster: Cluster, capacities: Callable[[float], Capacities]
) -> None:
    found = capacities(3600)
    cluster.gate.clear()
    found.request(ONE, waits=True)
    await wait_for_reads(cluster, 1)
    found.request(OTHER, waits=True)
    cluster.gpus = 2
    cluster.gate.set()
    assert await take_service(cluster) == ONE
    assert {await take_service(cluster), await take_service(cluster)} == {ONE, OTHER}
    assert found.request(OTHER, waits=True) == build_capacity(2)


async def test_a_service_that_no_longer_waits_is_forgotten(
    cluster: Cluster, capacities: Callable[[float], Capacities]
) -> None:
    found = capacities(0.001)
    found.request(ONE, waits=True)
    await take_service(cluster)
    assert found.request(ONE, waits=False) is None
    cluster.gpus = 5
    assert found.request(ONE, waits=True) is None, "what was known is not kept"
    await take_service(cluster)
    assert found.request(ONE, waits=True) == build_capacity(5)


async def test_an_api_server_that_fails_is_read_again(
    cluster: Cluster, capacities: Callable[[float], Capacities]
) -> None:
    found = capacities(0.001)
    cluster.gpus = None
    found.request(ONE, waits=True)
    await wait_for_reads(cluster, 3)
    assert found.request(ONE, waits=True) is None
    cluster.gpus = 3
    assert await take_service(cluster) == ONE
