"""Which revisions have pods, and how many at the least."""

from dataclasses import dataclass

from conch.decide.context import RolloutContext, least_replicas
from conch.decide.scale_to_zero import may_scale_to_zero
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.traffic import still_reached


@dataclass(frozen=True)
class RevisionReplicas:
    """A revision that has pods, and their minimum; 0: it is drained, and comes back if need be."""

    name: str
    minimum: int
    may_scale_to_zero: bool = False  # while no trigger is active


def replicas_of(context: RolloutContext, state: RolloutState | None, needed: int) -> tuple[RevisionReplicas, ...]:
    """Return the revisions that have pods, the wanted one first.

    Args:
        context: the wanted and the stable revision.
        state: of the rollout; None: there is none.
        needed: ready pods that the wanted revision needs now.
    """
    track = context.track
    if state is None:
        minimums = {context.wanted: least_replicas(context.service)}
    else:
        minimums = dict(strategy_of(state, context.service.spec.rollout).replicas(context, state, needed))
    # A revision that a request may still reach keeps its pods until the traffic has left it.
    for name in sorted((context.traffic.reachable | still_reached(track)) - minimums.keys()):
        if track.is_known(name):
            minimums[name] = max(track.replicas(name), 1)
    return tuple(
        RevisionReplicas(name, minimum, may_scale_to_zero(track, state, name)) for name, minimum in minimums.items()
    )
