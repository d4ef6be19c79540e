"""The operator while it has no service: the replica that leads, and the one that stands by (P16)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from tests.bench.controllers import Controller, Program, running
from tests.bench.services import connect, new_namespace
from tests.cluster import Cluster

SECONDS: Final = 60.0  # of the measurement
CALM_SECONDS: Final = 20.0  # after the start of both


@dataclass(frozen=True)
class Idle:
    """Two replicas of one program, no service.

    Attributes:
        who: the controller.
        seconds: how long the measurement lasted.
        leader_percent: of a core, that the leader used.
        standby_percent: that the other one used.
        leader_mib: resident memory, in MiB.
        standby_mib: likewise.
    """

    who: str
    seconds: float
    leader_percent: float
    standby_percent: float
    leader_mib: float
    standby_mib: float


async def measure(program: Program, cluster: Cluster, seconds: float = SECONDS) -> Idle:
    """Measure two replicas with leader election for some seconds; the first one leads.

    Raises:
        RuntimeError: one has ended by itself.
        TimeoutError: one is not ready within a minute.
    """
    async with await connect(cluster) as server, new_namespace(server, "idle") as namespace:
        lease = {"CONCH_LEASE_NAMESPACE": namespace}
        with running(program, cluster, namespace, lease) as leader:
            await leader.wait_ready()
            with running(program, cluster, namespace, lease) as standby:
                await standby.wait_ready()
                await asyncio.sleep(CALM_SECONDS)
                pair = (leader, standby)
                before, began = [each.figures for each in pair], time.monotonic()
                await asyncio.sleep(seconds)
                after, took = [each.figures for each in pair], time.monotonic() - began
                _check(pair)
    used = [100 * (last.cpu_seconds - first.cpu_seconds) / took for first, last in zip(before, after, strict=True)]
    return Idle(
        who=program.name,
        seconds=round(took, 1),
        leader_percent=round(used[0], 2),
        standby_percent=round(used[1], 2),
        leader_mib=round(after[0].mib, 1),
        standby_mib=round(after[1].mib, 1),
    )


def _check(controllers: tuple[Controller, ...]) -> None:
    for each in controllers:
        each.check()
