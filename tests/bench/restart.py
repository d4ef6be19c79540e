"""A controller that starts anew, where all services have their children: writes, and time until it is settled (P2)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.api.operator import Audit
from tests.bench.calls import find_calls
from tests.bench.controllers import Program, running
from tests.bench.services import create_services
from tests.bench.stage import open_namespace
from tests.cluster import Cluster


@dataclass(frozen=True)
class Restart:
    """One controller, one restart.

    Attributes:
        who: the controller.
        services: how many have their children.
        settled_seconds: from the start of the process until it has reconciled each of them, and writes no more.
        cpu_seconds: processor time of the process until then, and three seconds more.
        writes: all of them; what the target allows is none.
        reads: of single objects.
    """

    who: str
    services: int
    settled_seconds: float
    cpu_seconds: float
    writes: int
    reads: int


async def measure(program: Program, cluster: Cluster, services: int) -> Restart:
    """Measure one controller through one restart, after a burst that it has worked off."""
    async with open_namespace(program, cluster) as (server, namespace, children):
        with running(program, cluster, namespace) as first:
            await first.wait_started()
            await create_services(server, namespace, services)
            await children.wait(services, first.check)
            await first.settle(services)
        audit = Audit(cluster)
        with running(program, cluster, namespace) as second:
            settled, figures = await second.settle(services), second.figures
            calls = find_calls(audit, namespace)
    return Restart(
        who=program.name,
        services=services,
        settled_seconds=round(settled - second.started, 2),
        cpu_seconds=round(figures.cpu_seconds, 2),
        writes=sum(call.is_write for call in calls),
        reads=sum(call.verb == "get" for call in calls),
    )
