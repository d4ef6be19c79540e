"""The election of one replica, call by call, against a real API server and a line to it that fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from conch.api.kinds import CONFIG_MAP, LEASE, Ref
from conch.controller import lead
from conch.write import CallError, Server
from conch.write.leader import Election, LeaseLostError, Terms
from tests.api.operator import relayed
from tests.cluster import Cluster
from tests.support.kube import Kube
from tests.support.relay import Relay

TERMS = Terms(duration=5, deadline=4, retry=0.3, timeout=1)
NAME = "conch-operator"
NEVER = "1970-01-01T00:00:00.000000Z"


@pytest.fixture
def line(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Relay, Path]]:
    """The first replica's line to the API server, and its kubeconfig."""
    relay, file = relayed(cluster, tmp_path)
    yield relay, file
    relay.flows.set()
    relay.close()


@pytest.fixture
def relay(line: tuple[Relay, Path]) -> Relay:
    return line[0]


@pytest.fixture
async def replicas(
    cluster: Cluster, namespace: str, line: tuple[Relay, Path]
) -> AsyncIterator[tuple[Election, Election]]:
    """Two replicas; at no moment may both act."""
    async with (
        await Server.connect(str(line[1]), connections=1) as first,
        await Server.connect(str(cluster.kubeconfig), connections=1) as second,
    ):
        both = (
            Election(first, namespace, NAME, "a", time.monotonic, TERMS),
            Election(second, namespace, NAME, "b", time.monotonic, TERMS),
        )
        acted: list[tuple[bool, ...]] = []

        async def look() -> None:
            while True:
                acted.append(tuple(one.seconds_left() > 0 for one in both))
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        yield both
        looking.cancel()
        assert acted
        assert (True, True) not in acted


Replicas = tuple[Election, Election]


async def test_a_replica_takes_over_from_a_leader_that_falls_silent(replicas: Replicas) -> None:
    first, second = replicas
    await first.acquire()
    began = time.monotonic()
    await second.acquire()
    assert TERMS.duration <= time.monotonic() - began
    with pytest.raises(LeaseLostError, match="b holds the Lease"):
        await first.renew()


async def test_a_call_that_hangs_ends_the_leader_before_another_leads(replicas: Replicas, relay: Relay) -> None:
    first, second = replicas
    await first.acquire()
    keeping = asyncio.create_task(first.renew())
    await asyncio.sleep(TERMS.deadline + 1)
    assert first.seconds_left() > 0, "it is renewed"
    relay.flows.clear()
    await second.acquire()
    assert keeping.done(), "the first one knows that it leads no more"
    with pytest.raises(LeaseLostError, match="the Lease was not renewed for 4 s: no answer for 1 s"):
        await keeping


async def test_an_api_server_that_is_away_for_a_moment_ends_no_replica(replicas: Replicas, relay: Relay) -> None:
    first, second = replicas
    await first.acquire()
    keeping, standing = asyncio.create_task(first.renew()), asyncio.create_task(second.acquire())
    for away in (relay.flows.clear, lambda: setattr(relay, "refuses", True)):
        away()
        await asyncio.sleep(TERMS.deadline / 2)
        relay.flows.set()
        relay.refuses = False
        await asyncio.sleep(TERMS.deadline)
        assert first.seconds_left() > 0
        assert not keeping.done()
        assert not standing.done()
    await stop(keeping, standing)


async def test_a_standby_replica_waits_for_an_api_server_that_is_away(replicas: Replicas, relay: Relay) -> None:
    first, _ = replicas
    relay.refuses = True
    standing = asyncio.create_task(first.acquire())
    await asyncio.sleep(2 * TERMS.timeout)
    assert not standing.done()
    relay.refuses = False
    await asyncio.wait_for(standing, 10)


async def test_others_may_write_or_delete_the_lease(replicas: Replicas, kube: Kube, namespace: str) -> None:
    first, second = replicas
    await first.acquire()
    keeping = asyncio.create_task(first.renew())
    for words in (("annotate", "lease", NAME, "seen-by=a-user"), ("delete", "lease", NAME)):
        await asyncio.to_thread(kube.run, *words, f"--namespace={namespace}")
        await asyncio.sleep(TERMS.deadline)
        assert first.seconds_left() > 0
        assert not keeping.done()
    spec = kube.get(LEASE, namespace, NAME)["spec"]  # type: ignore[index]  # it is there
    assert spec["holderIdentity"] == "a"
    assert {"acquireTime", "renewTime", "leaseTransitions", "leaseDurationSeconds"} <= set(spec)
    await stop(keeping)
    await first.release()
    began = time.monotonic()
    await second.acquire()
    assert time.monotonic() - began < TERMS.duration, "no replica waits for a Lease that was released"


async def test_a_lease_that_is_deleted_does_not_end_the_time_of_its_holder(
    replicas: Replicas, kube: Kube, namespace: str
) -> None:
    first, second = replicas
    await first.acquire()
    standby = asyncio.create_task(second.acquire())
    await asyncio.sleep(3 * TERMS.retry)  # it has seen who leads
    began = time.monotonic()
    await asyncio.to_thread(kube.run, "delete", "lease", NAME, f"--namespace={namespace}")
    await standby
    assert first.seconds_left() <= 0, "the fixture checks that not both act"
    assert time.monotonic() - began > TERMS.deadline / 2


async def test_no_task_acts_any_more_when_the_lease_is_released(replicas: Replicas) -> None:
    first, second = replicas
    states: list[str] = []
    began = asyncio.Event()

    async def leading() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)
            held = await second.server.get(second.namespace, Ref(LEASE, NAME))
            states.append(f"has ended under the Lease of {held and held['spec']['holderIdentity']}")

    acting = asyncio.create_task(lead(first, leading))
    await began.wait()
    await stop(acting)
    assert states == ["has ended under the Lease of a"]
    await asyncio.wait_for(second.acquire(), TERMS.duration)


async def test_the_leaders_task_ends_when_the_lease_is_lost(replicas: Replicas, relay: Relay) -> None:
    first, _ = replicas
    ended = asyncio.Event()

    async def leading() -> None:
        relay.refuses = True
        relay.flows.clear()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(ExceptionGroup) as caught:
        await lead(first, leading)
    assert ended.is_set()
    assert caught.group_contains(LeaseLostError, match="was not renewed for 4 s")


async def test_a_renewal_that_was_cut_off_does_not_keep_the_lease(replicas: Replicas) -> None:
    first, second = replicas
    await first.acquire()
    renewal = asyncio.create_task(first.renew())
    lease = await first.server.get(first.namespace, Ref(LEASE, NAME))
    assert lease is not None
    await first.server.replace(LEASE, {**lease, "spec": {**lease["spec"], "renewTime": NEVER}}, "conch")  # unanswered
    await stop(renewal)
    await first.release()
    began = time.monotonic()
    await second.acquire()
    assert time.monotonic() - began < TERMS.duration, "no replica waits for a Lease that was released"


async def test_a_write_that_waits_for_a_connection_is_not_sent_when_the_lease_has_expired(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    allowed = iter([10.0, 0.0])  # when the call begins, and when it has a connection
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": namespace}}
    async with await Server.connect(str(cluster.kubeconfig), write_seconds=lambda: next(allowed)) as server:
        with pytest.raises(CallError, match="another replica may be the leader"):
            await server.create(CONFIG_MAP, body)
    assert next(allowed, None) is None
    assert kube.get(CONFIG_MAP, namespace, "late") is None


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
