"""Edits of two users while a burst is being worked off, beside edits while nothing else happens (P5).

One user has a service in the burst's namespace, the other in another one. An edit changes `minReplicas`, and takes
effect with the Deployment's next generation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.write import Server
from tests.bench.controllers import Controller, Program
from tests.bench.figures import percentile
from tests.bench.services import (
    Children,
    connect,
    create_service,
    create_services,
    new_namespace,
    wait_until,
    watch_children,
)
from tests.bench.stage import Stage, open_stage
from tests.cluster import Cluster

IDLE_EDITS: Final = 50
PAUSE_SECONDS: Final = 0.5  # of a user between two edits
# In turns, so that no value comes often enough to be taken for a contest between two writers (conch/contests.py).
_REPLICAS: Final = range(1, 21)
_EDITED: Final = "edited"


@dataclass(frozen=True)
class Edits:
    """How long edits take, each from its request until the child's change.

    Attributes:
        who: the controller.
        services: of the burst.
        edits: during the burst, of both users.
        same_idle_p50_ms: the user in the burst's namespace, before the burst.
        same_idle_p99_ms: likewise.
        same_burst_p50_ms: during the burst.
        same_burst_p99_ms: likewise.
        same_p99_ratio: p99 during the burst over p99 before it.
        other_idle_p50_ms: the user in another namespace, before the burst.
        other_idle_p99_ms: likewise.
        other_burst_p50_ms: during the burst.
        other_burst_p99_ms: likewise.
        other_p99_ratio: p99 during the burst over p99 before it.
    """

    who: str
    services: int
    edits: int
    same_idle_p50_ms: float
    same_idle_p99_ms: float
    same_burst_p50_ms: float
    same_burst_p99_ms: float
    same_p99_ratio: float
    other_idle_p50_ms: float
    other_idle_p99_ms: float
    other_burst_p50_ms: float
    other_burst_p99_ms: float
    other_p99_ratio: float


class User:
    """A user with one service."""

    def __init__(self, server: Server, namespace: str, children: Children, controller: Controller) -> None:
        self._server = server
        self._namespace = namespace
        self._children = children
        self._controller = controller
        self._replicas = cycle(_REPLICAS)
        next(self._replicas)  # a service without minReplicas has one

    async def create(self) -> None:
        """Create the service, and wait until it has its children."""
        await create_service(self._server, self._namespace, _EDITED)
        await self._children.wait(1, self._controller.check)

    async def edit(self, goes_on: Callable[[int], bool]) -> list[float]:
        """Edit the service again and again, at least once; return how long each edit took, in ms.

        Args:
            goes_on: whether one more edit follows, by the number of those that are done.
        """
        waits = [await self._edit()]
        while goes_on(len(waits)):
            await asyncio.sleep(PAUSE_SECONDS)
            waits.append(await self._edit())
        return waits

    async def _edit(self) -> float:
        before, _ = self._children.generations[_EDITED]
        spec = {"spec": {"predictor": {"minReplicas": next(self._replicas)}}}
        began = time.monotonic()
        await self._server.merge(self._namespace, Ref(INFERENCE_SERVICE, _EDITED), spec, "bench")
        await wait_until(lambda: self._children.generations[_EDITED][0] > before, self._controller.check)
        return 1000 * (self._children.generations[_EDITED][1] - began)


async def measure(program: Program, cluster: Cluster, services: int) -> Edits:
    """Measure a controller that acts on edits and serves all namespaces: the operator."""
    async with (
        open_stage(program, cluster) as stage,
        await connect(cluster) as other,  # the burst's creations do not delay it
        new_namespace(other, "other") as namespace,
        watch_children(other, namespace) as children,
    ):
        same = User(other, stage.namespace, stage.children, stage.controller)
        users = (same, User(other, namespace, children, stage.controller))
        await asyncio.gather(*(user.create() for user in users))
        await stage.controller.settle(len(users))
        idle = await asyncio.gather(*(user.edit(lambda number: number < IDLE_EDITS) for user in users))
        async with asyncio.TaskGroup() as group:
            burst = group.create_task(_run_burst(stage, services))
            busy = [group.create_task(user.edit(lambda _: not burst.done())) for user in users]
    return _summarise(program.name, services, idle, [task.result() for task in busy])


async def _run_burst(stage: Stage, services: int) -> None:
    """Create many services; return when all have their children."""
    await create_services(stage.server, stage.namespace, services)
    await stage.children.wait(services + 1, stage.controller.check)  # and the one that is edited


def _summarise(who: str, services: int, idle: Sequence[Sequence[float]], busy: Sequence[Sequence[float]]) -> Edits:
    """Return the record of both users: the first one has its service in the burst's namespace."""
    (same_idle, other_idle), (same_burst, other_burst) = idle, busy
    return Edits(
        who=who,
        services=services,
        edits=len(same_burst) + len(other_burst),
        same_idle_p50_ms=round(percentile(same_idle, 50), 1),
        same_idle_p99_ms=round(percentile(same_idle, 99), 1),
        same_burst_p50_ms=round(percentile(same_burst, 50), 1),
        same_burst_p99_ms=round(percentile(same_burst, 99), 1),
        same_p99_ratio=round(percentile(same_burst, 99) / percentile(same_idle, 99), 2),
        other_idle_p50_ms=round(percentile(other_idle, 50), 1),
        other_idle_p99_ms=round(percentile(other_idle, 99), 1),
        other_burst_p50_ms=round(percentile(other_burst, 50), 1),
        other_burst_p99_ms=round(percentile(other_burst, 99), 1),
        other_p99_ratio=round(percentile(other_burst, 99) / percentile(other_idle, 99), 2),
    )
