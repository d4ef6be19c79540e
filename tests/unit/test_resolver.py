"""Host names of users are resolved in threads, of which each namespace has a limited number."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from conch.api.kinds import ServiceKey
from conch.observe.measured import PrometheusQuery
from conch.signals.prometheus import Queries
from conch.signals.resolver import Resolver
from conch_contract.addresses import check_address

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))  # where no server listens


class Names:
    """Name servers: those of evil.example do not answer until they are released."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.answers = threading.Event()

    def look_up(self, host: str, *_: Any) -> list[tuple[Any, ...]]:
        """Answer as socket.getaddrinfo does."""
        self.queries.append(host)
        if host.endswith("evil.example"):
            self.answers.wait(20)
        return [ADDRESS]


async def resolve(resolver: Resolver, namespace: str, host: str) -> str:
    """Resolve a name for a namespace."""
    resolver.namespace.set(namespace)
    return str((await resolver.resolve(host, 9090))[0]["host"])


async def test_unresolved_names_hold_up_no_other_namespace_although_their_requests_time_out() -> None:
    names = Names()
    resolver = Resolver(8, names.look_up)  # a namespace has a quarter
    for _ in range(3):
        questions = [asyncio.create_task(resolve(resolver, "evil", f"{n}.evil.example")) for n in range(4)]
        await asyncio.sleep(0.05)
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
    assert len(names.queries) == 2, "a query that times out keeps its thread"
    assert await asyncio.wait_for(resolve(resolver, "good", "prometheus.good"), 10) == "127.0.0.1"
    names.answers.set()
    assert await asyncio.wait_for(resolve(resolver, "evil", "a.evil.example"), 10) == "127.0.0.1"


async def test_a_name_that_waits_for_one_namespace_is_resolved_for_another_at_once() -> None:
    names, woken = Names(), asyncio.Event()
    queries = Queries(lambda _: woken.set())
    queries._resolver._look_up = names.look_up
    slow = {n: PrometheusQuery(f"http://{n}.evil.example", "1", 60, 20) for n in range(16)}
    shared = PrometheusQuery("http://prometheus.monitoring", "1", 60, 10)
    queries.request(ServiceKey("evil", "m"), {**slow, 16: shared})
    await asyncio.sleep(0.1)
    for _ in range(100):
        if answers := queries.request(ServiceKey("good", "m"), {"a": shared}):
            break
        await asyncio.sleep(0.1)
    assert "cannot be queried" in answers["a"].error, "its name was resolved, and no server listens there"
    names.answers.set()
    await queries.close()


async def test_a_name_that_cannot_be_resolved_is_an_error_with_the_name() -> None:
    with pytest.raises(OSError, match="no host name"):
        await Resolver(4).resolve("a" * 70 + ".example", 9090)


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
        *("2002:a9fe:a9fe::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    ],
)
def test_no_metadata_server_of_a_cloud_is_contacted(address: str) -> None:
    with pytest.raises(ValueError, match="which Conch never contacts"):
        check_address(address)
