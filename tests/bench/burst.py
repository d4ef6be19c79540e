"""Services that are created all at once: rate, processor time, memory and calls (P1, P4, P6, P13)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.api.operator import Audit
from tests.bench.calls import count_writes_until_present, find_calls
from tests.bench.controllers import Program
from tests.bench.figures import percentile
from tests.bench.services import CHILDREN_EACH, create_services
from tests.bench.stage import open_stage
from tests.cluster import Cluster


@dataclass(frozen=True)
class Burst:
    """One controller, one burst.

    Attributes:
        who: the controller.
        services: how many.
        services_per_second: until all have all their children.
        present_p50_seconds: from a service's creation until its last child.
        present_p99_seconds: likewise.
        cpu_seconds: processor time from the first creation until the controller is settled.
        cpu_ms_per_child: the same in ms, for each child.
        idle_mib: resident memory before, in MiB.
        full_mib: after it is settled.
        kib_each: the difference for each service, in KiB.
        writes_until_present: for each service, until its last child and its first status.
        writes_each: for each service, until the controller is settled.
        reads_each: of single objects.
        reconciles_each: for each service, until the controller is settled.
    """

    who: str
    services: int
    services_per_second: float
    present_p50_seconds: float
    present_p99_seconds: float
    cpu_seconds: float
    cpu_ms_per_child: float
    idle_mib: float
    full_mib: float
    kib_each: float
    writes_until_present: float
    writes_each: float
    reads_each: float
    reconciles_each: float


async def measure(program: Program, cluster: Cluster, services: int) -> Burst:
    """Measure one controller through one burst."""
    async with open_stage(program, cluster) as stage:
        audit, idle, began = Audit(cluster), stage.controller.figures, time.monotonic()
        created = await create_services(stage.server, stage.namespace, services)
        await stage.children.wait(services, stage.controller.check)
        await stage.controller.settle(services)  # what comes after the children belongs to the burst's cost
        full, calls = stage.controller.figures, find_calls(audit, stage.namespace)
        work = await stage.controller.read_work()
    present = stage.children.present
    waits = [present[service] - moment for service, moment in created.items()]
    cpu_seconds = full.cpu_seconds - idle.cpu_seconds
    return Burst(
        who=program.name,
        services=services,
        services_per_second=round(services / (max(present.values()) - began), 2),
        present_p50_seconds=round(percentile(waits, 50), 3),
        present_p99_seconds=round(percentile(waits, 99), 3),
        cpu_seconds=round(cpu_seconds, 2),
        cpu_ms_per_child=round(1000 * cpu_seconds / services / CHILDREN_EACH, 2),
        idle_mib=round(idle.mib, 1),
        full_mib=round(full.mib, 1),
        kib_each=round((full.mib - idle.mib) * 1024 / services, 1),
        writes_until_present=count_writes_until_present(calls),
        writes_each=round(sum(call.is_write for call in calls) / services, 2),
        reads_each=round(sum(call.verb == "get" for call in calls) / services, 2),
        reconciles_each=round(work.reconciles / services, 2),
    )
