"""The one loop: look, ask, decide, write the difference, tell. Read this file first.

Every room that it calls but `signals` and `write` is a pure function; what is not finished is not
waited for here, but planned: a reconcile returns, and an event or the queue's clock brings it back.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from conch.api import Status
from conch.api.kinds import ServiceKey
from conch.api.metrics import MetricsApi
from conch.decide import Trouble, asks_for_room, decide, events, pods_to_ask, stuck, tell, tell_unreadable, to_measure
from conch.desire import Images, desire
from conch.observe import Gateways, Store, Unreadable, observe
from conch.plan import Refusal, plan
from conch.signals import Agents, Capacities, Gauges, Warnings
from conch.write import CallError, EventWriter, Writer


@dataclass(frozen=True)
class Reconciler:
    """What a reconcile needs of the outside: stores, ears, mouths, a clock."""

    store: Store
    gateways: Gateways | None  # None: nobody watches them
    agents: Agents
    gauges: Gauges
    capacities: Capacities
    warnings: Warnings
    writer: Writer
    event_writer: EventWriter
    images: Images
    metrics_api: MetricsApi
    prometheus: str  # where KEDA asks about Triton
    clock: Callable[[], float]

    async def __call__(self, key: ServiceKey) -> "Outcome":
        """Bring one service nearer to what its spec asks.

        Raises:
            CallError: the API server failed; try again later.
        """
        world = observe(self.store, key, self.clock(), self.gateways, self.metrics_api, prometheus=self.prometheus)
        if world is None:
            return Outcome()  # gone, and the garbage collector takes the children
        if isinstance(world, Unreadable):
            await self._tell(key, world.uid, Status.lenient(world.status), tell_unreadable(world, self.clock()))
            return Outcome()
        world = world.told(self.agents.ask(key, pods_to_ask(world)))
        world = world.with_warnings(self.warnings.ask(key, stuck(world)))
        world = world.with_measured(self.gauges.ask(key, world.pods, to_measure(world)))
        world = world.with_capacity(self.capacities.ask(key, waits=asks_for_room(world)))
        decision = decide(world)
        steps, blocked = plan(world, decision, desire(world, decision, self.images))
        uid = world.service.metadata.uid
        before = world.service.status
        try:
            refusals = [*blocked, *await self.writer.carry_out(key, uid, steps)]
        except CallError:
            # The clock of a rollout, and with it the way back, does not depend on the write of a child.
            with suppress(CallError):
                await self._tell(key, uid, before, tell(world, decision, _trouble(blocked)))
            raise
        if not await self._tell(key, uid, before, tell(world, decision, _trouble(refusals))):
            return Outcome()
        return Outcome(wait=decision.wait, refused=bool(refusals))

    async def _tell(self, key: ServiceKey, uid: str, before: Status, after: Status) -> bool:
        """Write the status and its events, if they are new; return whether the service is still there."""
        if after == before:
            return True
        there = await self.writer.write_status(key, uid, after.to_wire())
        if there:
            await self.event_writer.tell(key, uid, events(before, after), self.clock())
        return there


@dataclass(frozen=True)
class Outcome:
    """When to look again, in seconds, if nothing happens; and whether something was refused."""

    wait: float | None = None
    refused: bool = False


def _trouble(refusals: list[Refusal]) -> Trouble | None:
    """The first refusal speaks for all: mending it brings the next to light."""
    return Trouble(refusals[0].reason, refusals[0].message) if refusals else None
