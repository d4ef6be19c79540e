"""One of the replicas acts: the holder of a Lease (kubernetes_asyncio's leader election).

Losing the Lease ends the process, as client-go's controllers do: what it was about to write is then
nobody's, and the kubelet starts it anew to stand by.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from kubernetes_asyncio.leaderelection.electionconfig import Config
from kubernetes_asyncio.leaderelection.leaderelection import LeaderElection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock

from conch.write.server import Server

# Seconds. Failover takes at most LEASE + RETRY after the leader dies, and RETRY after it leaves in peace.
LEASE: Final = 8
RENEW: Final = 5
RETRY: Final = 2


async def lead(server: Server, namespace: str, name: str, identity: str, act: Callable[[], Awaitable[None]]) -> None:
    """Stand by until the Lease is ours, then act until it is lost or `act` ends."""

    async def start() -> None:
        await act()

    async def stop() -> None:
        return None

    lock: Any = LeaseLock(name, namespace, identity, server.client)
    election = LeaderElection(Config(lock, LEASE, RENEW, RETRY, start, stop))
    await election.run()


async def resign(server: Server, namespace: str, name: str, identity: str) -> None:
    """Give the Lease up at once, so that nobody waits for it to run out."""
    lock: Any = LeaseLock(name, namespace, identity, server.client)
    held, record = await lock.get(name, namespace)
    if held and record.holder_identity == identity:
        lock.lease_reference.spec.lease_duration_seconds = 1
        lock.lease_reference.spec.holder_identity = ""
        await lock.api_instance.replace_namespaced_lease(name, namespace, lock.lease_reference)
