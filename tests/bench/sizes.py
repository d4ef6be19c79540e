"""What the operator needs with more and more services: one number of services after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import click

from conch.write import Server
from tests.bench.controllers import CONCH, Controller, running
from tests.bench.edits import User
from tests.bench.figures import percentile
from tests.bench.services import connect, create_namespace, create_services, watch_children
from tests.cluster import Cluster
from tests.cluster.controlplane import CONTROLLERS

NAMESPACE_SERVICES: Final = 100
EDITS: Final = 50
_EDITS: Final = "edits"  # a namespace
REST_SECONDS: Final = 30.0
SERVICES_PER_SECOND: Final = 4.0  # a slower operator is given up, after the 15 minutes of `Controller.settle`


@dataclass(frozen=True)
class Size:
    """One number of services.

    Attributes:
        services: how many there are.
        with_pods: how many of them have a pod.
        services_per_second: as those that the last size lacks were created at once, until all are settled.
        cpu_ms_each: processor time of each of those.
        mib: resident memory, in MiB.
        kib_each: the difference to the operator without services, in KiB a service.
        edit_p50_ms: of a user's edits, one after the other, each until the Deployment has changed.
        edit_p99_ms: likewise.
        restart_seconds: of a new process, until it has reconciled all services.
        restart_cpu_seconds: its processor time until then.
        restart_writes: its writes until then.
        restart_mib: its memory then, in MiB.
        rest_percent: of a core, that it uses afterwards, while nothing happens.
        rest_writes: its writes in that time.
    """

    services: int
    with_pods: int
    services_per_second: float
    cpu_ms_each: float
    mib: float
    kib_each: float
    edit_p50_ms: float
    edit_p99_ms: float
    restart_seconds: float
    restart_cpu_seconds: float
    restart_writes: int
    restart_mib: float
    rest_percent: float
    rest_writes: int


@dataclass(frozen=True)
class Growth:
    """What one more number of services took: as in `Size`."""

    services_per_second: float
    cpu_ms_each: float
    mib: float


@dataclass(frozen=True)
class Restarted:
    """What a new process needed: as in `Size`."""

    seconds: float
    cpu_seconds: float
    writes: int
    mib: float
    rest_percent: float
    rest_writes: int


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long a part of the measurement took."""
    began = time.monotonic()
    yield
    click.echo(f"  {what}: {time.monotonic() - began:.1f} s", err=True)


@contextmanager
def without_pods(cluster: Cluster) -> Iterator[None]:
    """Stop the controllers of Kubernetes: Deployments get no pods, and Services no endpoints, until the end."""
    pid = cluster.records.running()[CONTROLLERS].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def grow(controller: Controller, server: Server, before: int, services: int) -> Growth:
    """Create the services that the last size lacks, all of a namespace at once, and wait until all are settled."""
    done, start, began = (await controller.read_work()).reconciles, controller.figures, time.monotonic()
    for first in range(before, services, NAMESPACE_SERVICES):
        name = f"scale-{first}"
        await create_namespace(server, name)
        await create_services(server, name, min(NAMESPACE_SERVICES, services - first))
    added = services - before
    settled = await controller.settle(done + added, seconds=added / SERVICES_PER_SECOND)
    grown = controller.figures
    return Growth(
        services_per_second=round(added / (settled - began), 2),
        cpu_ms_each=round(1000 * (grown.cpu_seconds - start.cpu_seconds) / added, 1),
        mib=grown.mib,
    )


async def measure_restart(controller: Controller, services: int) -> Restarted:
    """Measure a process that has just started where all services have their children."""
    settled = await controller.settle(services, seconds=services / SERVICES_PER_SECOND)
    before, writes, began = controller.figures, (await controller.read_work()).writes, time.monotonic()
    await asyncio.sleep(REST_SECONDS)  # without agents, new pods are polled for a minute; these are older
    used, took = controller.figures.cpu_seconds - before.cpu_seconds, time.monotonic() - began
    return Restarted(
        seconds=settled - controller.started,
        cpu_seconds=before.cpu_seconds,
        writes=writes,
        mib=before.mib,
        rest_percent=100 * used / took,
        rest_writes=(await controller.read_work()).writes - writes,
    )


async def measure(
    cluster: Cluster, sizes: Sequence[int], pods: int, report: Callable[[Sequence[Size]], None]
) -> list[Size]:
    """Measure the operator at each of some numbers of services, the smallest first.

    The process that was restarted with the services of one size goes on with those of the next.

    Args:
        cluster: a control plane without services.
        sizes: the numbers of services.
        pods: services beyond this number have no pods.
        report: is called with what is measured so far, after each size.
    """
    found: list[Size] = []
    async with (
        await connect(cluster) as server,
        await connect(cluster) as other,
        watch_children(other, _EDITS) as children,
    ):
        await create_namespace(server, _EDITS)
        with ExitStack() as stack, ExitStack() as process:
            controller = process.enter_context(running(CONCH, cluster, ""))
            await controller.wait_started()
            empty = controller.figures.mib
            await User(other, _EDITS, children, controller).create()
            for services in sorted(set(sizes)):
                before = found[-1] if found else None
                click.echo(f"{services:,} services", err=True)
                if services > pods and (before is None or before.services <= pods):
                    stack.enter_context(without_pods(cluster))
                with timed("created and settled"):
                    growth = await grow(controller, server, before.services if before else 0, services)
                with timed(f"{EDITS} edits"):
                    edits = await User(other, _EDITS, children, controller).edit(lambda number: number < EDITS)
                    await controller.settle()
                process.close()
                controller = process.enter_context(running(CONCH, cluster, ""))
                with timed("restarted and at rest"):
                    restarted = await measure_restart(controller, services)
                with_pods = services if services <= pods else before.with_pods if before else 0
                found.append(_combine((services, with_pods), empty, growth, edits, restarted))
                report(found)
    return found


def _combine(
    numbers: tuple[int, int], empty_mib: float, growth: Growth, edits: Sequence[float], restarted: Restarted
) -> Size:
    """Return the record of one size.

    Args:
        numbers: of services, and of those with pods.
        empty_mib: memory without services, in MiB.
        growth: from the last size.
        edits: how long each took, in ms.
        restarted: what a new process needed.
    """
    services, with_pods = numbers
    return Size(
        services=services,
        with_pods=with_pods,
        services_per_second=growth.services_per_second,
        cpu_ms_each=growth.cpu_ms_each,
        mib=round(growth.mib, 1),
        kib_each=round(1024 * (growth.mib - empty_mib) / services, 1),
        edit_p50_ms=round(percentile(edits, 50), 1),
        edit_p99_ms=round(percentile(edits, 99), 1),
        restart_seconds=round(restarted.seconds, 1),
        restart_cpu_seconds=round(restarted.cpu_seconds, 1),
        restart_writes=restarted.writes,
        restart_mib=round(restarted.mib, 1),
        rest_percent=round(restarted.rest_percent, 1),
        rest_writes=restarted.rest_writes,
    )
