"""Services and their children, as a user of the API server sees them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from conch.api.child_kinds import CHILDREN, OPTIONAL
from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, NAMESPACE, Kind, Ref
from conch.write import CallError, Server
from conch.write.lists import Listing, list_pages, watch
from conch_contract import names
from tests.api.operator import isvc
from tests.cluster import Cluster

CHILDREN_EACH: Final = 6  # of the service that `isvc` returns
CLEAR_SECONDS: Final = 1800
WAIT_SECONDS: Final = 1800
_EVERY: Final = 0.02  # seconds between two checks of a condition, which cost no call
_WATCH_SECONDS: Final = 3600
_AT_A_TIME: Final = 16  # creations: so that none waits for a connection until it is too late


async def connect(cluster: Cluster) -> Server:
    """Return a connection of a user, whose calls the audit log does not mix up with a controller's."""
    server = await Server.connect(str(cluster.kubeconfig))
    server.client.user_agent = "bench"
    return server


@asynccontextmanager
async def new_namespace(server: Server, name: str) -> AsyncIterator[str]:
    """A namespace that is deleted at the end, with all that is in it: the next controller must not see its services."""
    name = f"bench-{name}-{time.time_ns() // 1_000_000}"
    await create_namespace(server, name)
    try:
        yield name
    finally:
        await clear(server, name)


async def create_namespace(server: Server, name: str) -> None:
    """Create a namespace."""
    await server.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def clear(server: Server, namespace: str) -> None:
    """Delete a namespace and wait until it is gone."""
    await server.delete("", Ref(NAMESPACE, namespace))
    async with asyncio.timeout(CLEAR_SECONDS):
        while await server.metadata("", Ref(NAMESPACE, namespace)):  # noqa: ASYNC110  a condition at the API server
            await asyncio.sleep(1)


async def create_service(server: Server, namespace: str, name: str) -> float:
    """Create a service; return the moment by `time.monotonic()` at which the request was sent."""
    body = isvc(name)
    began = time.monotonic()
    await server.create(INFERENCE_SERVICE, {**body, "metadata": {**body["metadata"], "namespace": namespace}})
    return began


async def create_services(server: Server, namespace: str, count: int) -> dict[str, float]:
    """Create services s0, s1, ..., some at a time and without a pause; return when the request of each was sent."""
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def create(service: str) -> tuple[str, float]:
        async with gate:
            return service, await create_service(server, namespace, service)

    return dict(await asyncio.gather(*(create(f"s{number}") for number in range(count))))


class Children:
    """The children in a namespace, by their watches; moments are those of `time.monotonic()`."""

    def __init__(self) -> None:
        self.present: dict[str, float] = {}
        """When the last child of each service came."""
        self.generations: dict[str, tuple[int, float]] = {}
        """The generation of each service's Deployment, and when it came."""
        self._counts: Counter[str] = Counter()

    def add(self, kind: Kind, event: str, body: dict[str, Any], now: float) -> None:
        """Add an event of a watch; a bookmark is about no object."""
        if event == "BOOKMARK":
            return
        service, generation = body["metadata"]["labels"][names.LABEL_SERVICE], body["metadata"].get("generation", 0)
        if event == "ADDED":
            self._counts[service] += 1
            if self._counts[service] == CHILDREN_EACH:
                self.present[service] = now
        if kind == DEPLOYMENT and generation > self.generations.get(service, (0, 0.0))[0]:
            self.generations[service] = (generation, now)

    async def wait(self, services: int, check: Callable[[], None]) -> None:
        """Wait until so many services have all their children."""
        await wait_until(lambda: len(self.present) >= services, check)


@asynccontextmanager
async def watch_children(server: Server, namespace: str) -> AsyncIterator[Children]:
    """Watch the children in a namespace that has none, of the kinds that every cluster has."""
    children = Children()

    async def follow(listing: Listing, version: str) -> None:
        while True:
            try:
                async for event in watch(server, listing, version, _WATCH_SECONDS):
                    children.add(listing.kind, event.type, event.body, time.monotonic())
                    version = event.body["metadata"]["resourceVersion"]
            except CallError as error:
                if error.code:
                    raise
                # Nothing came for long, not even a bookmark: the API server is busy. The watch goes on.

    async with asyncio.TaskGroup() as group:
        tasks = []
        for kind in (kind for kind in CHILDREN if kind not in OPTIONAL):
            listing = Listing(kind, namespace, names.LABEL_SERVICE, metadata_only=True)
            version = [page.version async for page in list_pages(server, listing)][-1]
            tasks.append(group.create_task(follow(listing, version)))
        try:
            yield children
        finally:
            for task in tasks:
                task.cancel()


async def wait_until(condition: Callable[[], bool], check: Callable[[], None]) -> None:
    """Wait until a condition holds.

    Args:
        condition: is called every 20 ms.
        check: is called as often; it raises when the condition cannot come to hold.

    Raises:
        TimeoutError: it does not hold after half an hour.
    """
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            check()
            await asyncio.sleep(_EVERY)
