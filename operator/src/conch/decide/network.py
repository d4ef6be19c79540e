"""Whether the network does what was decided, and what keeps it from that."""

from typing import Final

from conch.decide.rollout import Decision
from conch.observe import Trouble, World
from conch.traffic import router_of

# What every change of a route brings with it for a moment.
PASSING: Final = frozenset({"RouteMissing", "GatewayPending"})
# What the first write of a route brings with it too; only time tells whether it is more.
PERHAPS: Final = frozenset({"GatewaySilent"})


def programmed(world: World, decision: Decision, *, routed: bool) -> bool:
    """Whether the traffic goes as it shall, as far as it tells; `routed`: the route says it."""
    return routed and router_of(world.service).follows(decision.in_force.told, decision.shares)


def hindered(decision: Decision, passing: frozenset[str]) -> Trouble | None:
    """Return what the network does not do as asked, but for reasons that pass by themselves."""
    trouble = decision.in_force.trouble
    return trouble if trouble is not None and trouble.reason not in passing else decision.in_force.unsupported
