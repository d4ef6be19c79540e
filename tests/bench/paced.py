"""Services that are created one after the other at a constant rate: how long each waits for its children (P3)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.api.operator import Audit
from tests.bench.calls import count_writes_until_present, find_calls
from tests.bench.controllers import Program
from tests.bench.figures import percentile
from tests.bench.services import CHILDREN_EACH, create_service
from tests.bench.stage import Stage, open_stage
from tests.cluster import Cluster


@dataclass(frozen=True)
class Paced:
    """One controller, creations at one rate.

    Attributes:
        who: the controller.
        services: how many.
        rate: creations a second.
        present_p50_ms: from a service's creation until its last child.
        present_p99_ms: likewise.
        cpu_ms_per_child: processor time until the controller is settled, in ms for each child.
        writes_until_present: for each service, until its last child and its first status.
        writes_each: for each service, until the controller is settled.
    """

    who: str
    services: int
    rate: float
    present_p50_ms: float
    present_p99_ms: float
    cpu_ms_per_child: float
    writes_until_present: float
    writes_each: float


async def measure(program: Program, cluster: Cluster, services: int, rate: float) -> Paced:
    """Measure one controller.

    Args:
        program: the controller.
        cluster: where.
        services: how many.
        rate: creations a second. A creation is sent when it is due, whether or not the one before is answered.
    """
    async with open_stage(program, cluster) as stage:
        audit, idle = Audit(cluster), stage.controller.figures
        created = await _create(stage, services, rate)
        await stage.children.wait(services, stage.controller.check)
        await stage.controller.settle(services)
        full, calls = stage.controller.figures, find_calls(audit, stage.namespace)
    waits = [stage.children.present[service] - moment for service, moment in created.items()]
    return Paced(
        who=program.name,
        services=services,
        rate=rate,
        present_p50_ms=round(1000 * percentile(waits, 50), 1),
        present_p99_ms=round(1000 * percentile(waits, 99), 1),
        cpu_ms_per_child=round(1000 * (full.cpu_seconds - idle.cpu_seconds) / services / CHILDREN_EACH, 2),
        writes_until_present=count_writes_until_present(calls),
        writes_each=round(sum(call.is_write for call in calls) / services, 2),
    )


async def _create(stage: Stage, services: int, rate: float) -> dict[str, float]:
    """Create services s0, s1, ... at a rate; return when the request of each was sent."""
    began = time.monotonic()

    async def create(number: int) -> tuple[str, float]:
        await asyncio.sleep(began + number / rate - time.monotonic())
        return f"s{number}", await create_service(stage.server, stage.namespace, f"s{number}")

    return dict(await asyncio.gather(*(create(number) for number in range(services))))
