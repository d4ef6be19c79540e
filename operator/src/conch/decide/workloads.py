"""Which workloads a track has, and how many pods at the least."""

from collections.abc import Iterable
from dataclasses import dataclass

from conch.decide.context import RolloutContext, least_replicas
from conch.decide.scale_to_zero import may_scale_to_zero
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.decide.swap import stays_in_place
from conch.observe import Pod, Track
from conch.traffic import still_reached


@dataclass(frozen=True)
class Workload:
    """Pods: a Deployment with its ConfigMap, disruption budget and autoscaler.

    A revision is content: models, their configuration and a pod template.

    Attributes:
        name: Name of its objects, and of the revision whose pod template its pods have.
        revisions: Names of the revisions that its pods serve: one, or two that a Swap exchanges.
        main: The one that pods serve to which none is assigned.
        minimum: Of its replicas; 0: it is drained, and gets pods again if need be.
        may_scale_to_zero: Whether it may be without pods while no trigger is active.
        selects_all: Whether the Services of `main` select all its pods, whatever their label: after a Swap all serve
            it, and new ones have the label of the template, which is that of an earlier revision.
        is_in_place: Whether its pods serve while they change their revision. The Services of all its revisions then
            select all its pods.
    """

    name: str
    revisions: tuple[str, ...]
    main: str
    minimum: int
    may_scale_to_zero: bool = False
    selects_all: bool = False
    is_in_place: bool = False

    def list_selecting_all(self) -> tuple[str, ...]:
        """Return the revisions whose Services select all its pods, whatever their label."""
        if self.is_in_place:
            return self.revisions
        return (self.main,) if self.selects_all else ()


def list_workloads(
    context: RolloutContext, state: RolloutState | None, needed: int, serving: str
) -> tuple[Workload, ...]:
    """Return the workloads, the one of the wanted revision first.

    Args:
        context: the wanted and the stable revision.
        state: of the rollout; None: there is none.
        needed: ready pods that the wanted revision needs now.
        serving: the revision that carries the service.
    """
    track = context.track
    if state is None:
        minimums = {context.wanted: max(least_replicas(context.service), _count_kept(track, context.wanted))}
    else:
        minimums = dict(strategy_of(state, context.service.spec.rollout).replicas(context, state, needed))
    # A revision that a request may still reach keeps its pods until the traffic has left it.
    for name in sorted((context.traffic.reachable | still_reached(track)) - minimums.keys()):
        if track.is_known(name):
            minimums[name] = max(track.replicas(track.workload_of(name)), 1)
    revisions: dict[str, list[str]] = {}
    for name in minimums:
        revisions.setdefault(find_workload(context, state, name), []).append(name)
    is_under_way = state is not None and state.is_under_way
    mains = {workload: serving if serving in served else served[0] for workload, served in revisions.items()}
    in_place = {workload for workload, main in mains.items() if _is_in_place(context, state, workload, main)}
    return tuple(
        Workload(
            name=workload,
            revisions=tuple(served),
            main=mains[workload],
            minimum=max(minimums[name] for name in served),
            may_scale_to_zero=all(may_scale_to_zero(track, state, name) for name in served),
            selects_all=_selects_all(track, workload, mains[workload], is_shared=is_under_way and len(served) > 1),
            is_in_place=workload in in_place,
        )
        for workload, served in revisions.items()
    )


def _count_kept(track: Track, revision: str) -> int:
    """Return the replicas of a workload while one of its pods is ready, and leaves or has left its Services; else 0.

    With fewer, its ReplicaSet might end the pods that serve in place of that one.
    """
    workload = track.workload_of(revision)
    pods = (pod for pod in track.pods_in(workload) if pod.is_up and not pod.is_in_place)
    return track.replicas(workload) if any(pod.is_changing or pod.revision != revision for pod in pods) else 0


def _is_in_place(context: RolloutContext, state: RolloutState | None, workload: str, main: str) -> bool:
    """Return whether the pods of a workload serve while they change to the candidate, or back to `main`."""
    pods = context.track.pods_in(workload)
    if any(pod.is_in_place for pod in pods) or stays_in_place(context.track, pods, main):
        return True
    strategy = strategy_of(state, context.service.spec.rollout) if state is not None else None
    return strategy is not None and strategy.is_in_place and find_workload(context, state, context.wanted) == workload


def _selects_all(track: Track, workload: str, main: str, *, is_shared: bool) -> bool:
    """Return whether Services select all pods of a workload.

    If it is shared with a candidate, they select by label as soon as each pod has one, before the first pod changes.
    """
    pods = track.pods_in(workload)
    serve_main = all(pod.revision == main and not pod.is_changing for pod in pods)
    return workload != main and serve_main and (not is_shared or has_new_pods(pods))


def has_new_pods(pods: Iterable[Pod]) -> bool:
    """Return whether pods serve whose label does not have their revision yet."""
    return any(pod.is_up and pod.label != pod.revision and not pod.is_changing for pod in pods)


def find_workload(context: RolloutContext, state: RolloutState | None, revision: str) -> str:
    """Return the workload whose pods serve a revision. That of a candidate follows from the strategy in force."""
    if state is None or revision != context.wanted:
        return context.track.workload_of(revision)
    strategy = strategy_of(state, context.service.spec.rollout)
    return context.track.workload_of(context.stable) if strategy.shares_pods else revision
