"""Which workloads a track has, and how many pods at the least."""

from dataclasses import dataclass

from conch.decide.context import RolloutContext, least_replicas
from conch.decide.scale_to_zero import may_scale_to_zero
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.traffic import still_reached


@dataclass(frozen=True)
class Workload:
    """Pods: a Deployment with its ConfigMap, disruption budget and autoscaler.

    A revision is content: models, their configuration and a pod template.

    Attributes:
        name: Name of its objects, and of the revision whose pod template its pods have.
        revisions: Names of the revisions that its pods serve: one, or two that a Swap exchanges.
        minimum: Of its replicas; 0: it is drained, and gets pods again if need be.
        may_scale_to_zero: Whether it may be without pods while no trigger is active.
    """

    name: str
    revisions: tuple[str, ...]
    minimum: int
    may_scale_to_zero: bool = False

    @property
    def is_swapped(self) -> bool:
        """Whether its pods serve a single revision, and new pods begin with the label of another one."""
        return len(self.revisions) == 1 and self.revisions[0] != self.name


def list_workloads(context: RolloutContext, state: RolloutState | None, needed: int) -> tuple[Workload, ...]:
    """Return the workloads, the one of the wanted revision first.

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
            minimums[name] = max(track.replicas(track.workload_of(name)), 1)
    revisions: dict[str, list[str]] = {}
    for name in minimums:
        revisions.setdefault(find_workload(context, state, name), []).append(name)
    return tuple(
        Workload(
            workload,
            tuple(served),
            max(minimums[name] for name in served),
            all(may_scale_to_zero(track, state, name) for name in served),
        )
        for workload, served in revisions.items()
    )


def find_workload(context: RolloutContext, state: RolloutState | None, revision: str) -> str:
    """Return the workload whose pods serve a revision. That of a candidate follows from the strategy in force."""
    if state is None or revision != context.wanted:
        return context.track.workload_of(revision)
    strategy = strategy_of(state, context.service.spec.rollout)
    return context.track.workload_of(context.stable) if strategy.shares_pods else revision
